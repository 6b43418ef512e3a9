from harness.flavours import workload_test

test_stopped = workload_test("stopped")
