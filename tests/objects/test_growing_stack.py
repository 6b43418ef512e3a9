from harness.flavours import workload_test

test_growing_stack = workload_test("growing_stack")
