from harness.flavours import workload_test

test_timerfd = workload_test("timerfd")
