from harness.flavours import workload_test

test_limits = workload_test("limits")
