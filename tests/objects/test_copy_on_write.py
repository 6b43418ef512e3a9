from harness.flavours import workload_test

test_copy_on_write = workload_test("copy_on_write")
