from harness.flavours import workload_test

test_zombies = workload_test("zombies")
