from harness.flavours import workload_test

test_unix_names = workload_test("unix_names")
