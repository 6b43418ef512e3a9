from harness.flavours import workload_test

test_nothing = workload_test("shared_tables")
test_files = workload_test("shared_tables", ["files"])
test_directories = workload_test("shared_tables", ["fs"])
test_files_and_directories = workload_test("shared_tables", ["files", "fs"])
test_memory = workload_test("shared_tables", ["vm"])
test_memory_and_signal_actions = workload_test("shared_tables", ["vm", "sighand"])
test_all = workload_test("shared_tables", ["files", "fs", "vm", "sighand"])
