from harness.flavours import workload_test

test_deleted_cwd = workload_test("deleted_cwd")
