from harness.flavours import workload_test

test_itimer_unread = workload_test("itimer_unread")
