from harness.flavours import workload_test

test_many_descriptors = workload_test("many_descriptors")
