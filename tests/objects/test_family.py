from harness.flavours import workload_test

test_family = workload_test("family")
