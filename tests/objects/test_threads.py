from harness.flavours import workload_test

test_threads = workload_test("threads")
