from harness.flavours import workload_test

test_udp = workload_test("udp")
