from harness.flavours import workload_test

test_memfd = workload_test("memfd")
