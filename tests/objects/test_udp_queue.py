from harness.flavours import workload_test

test_udp_queue = workload_test("udp_queue")
