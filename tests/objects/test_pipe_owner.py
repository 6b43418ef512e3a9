from harness.flavours import workload_test

test_pipe_owner = workload_test("pipe_owner")
