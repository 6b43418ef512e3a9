from harness.flavours import workload_test

test_plain_files = workload_test("plain_files")
