from harness.flavours import workload_test

test_interrupted = workload_test("interrupted")
