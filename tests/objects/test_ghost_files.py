from harness.flavours import workload_test

test_ghost_files = workload_test("ghost_files")
