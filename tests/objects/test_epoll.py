from harness.flavours import workload_test

test_epoll = workload_test("epoll")
