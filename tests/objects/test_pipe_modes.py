from harness.flavours import workload_test

test_pipe_modes = workload_test("pipe_modes")
