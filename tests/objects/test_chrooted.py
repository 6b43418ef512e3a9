from harness.flavours import workload_test

test_chrooted = workload_test("chrooted")
