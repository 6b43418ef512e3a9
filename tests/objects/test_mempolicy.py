from harness.flavours import workload_test

test_mempolicy = workload_test("mempolicy")
