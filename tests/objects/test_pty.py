from harness.flavours import workload_test

test_pty = workload_test("pty")
