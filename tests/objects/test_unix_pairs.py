from harness.flavours import workload_test

test_unix_pairs = workload_test("unix_pairs")
