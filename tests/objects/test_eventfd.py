from harness.flavours import workload_test

test_eventfd = workload_test("eventfd")
