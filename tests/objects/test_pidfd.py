from harness.flavours import workload_test

test_pidfd = workload_test("pidfd")
