from harness.flavours import workload_test

test_signalfd = workload_test("signalfd")
