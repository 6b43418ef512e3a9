from harness.flavours import workload_test

test_file_owner = workload_test("file_owner")
