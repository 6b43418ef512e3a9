from harness.flavours import workload_test

test_aio = workload_test("aio")
