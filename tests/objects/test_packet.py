from harness.flavours import workload_test

test_packet = workload_test("packet")
