from harness.flavours import workload_test

test_pty_session = workload_test("pty_session")
