from harness.flavours import workload_test

test_private_memory = workload_test("private_memory")
