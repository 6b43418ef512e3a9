from harness.flavours import workload_test

test_scheduling = workload_test("scheduling")
