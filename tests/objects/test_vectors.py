from harness.flavours import workload_test

test_vectors = workload_test("vectors")
