from harness.flavours import workload_test

test_tcp_listen = workload_test("tcp_listen")
