from harness.flavours import workload_test

test_undumpable = workload_test("undumpable")
