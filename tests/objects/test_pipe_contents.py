from harness.flavours import workload_test

test_pipe_contents = workload_test("pipe_contents")
