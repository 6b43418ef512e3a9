from harness.flavours import workload_test

test_mq_notify = workload_test("mq_notify")
