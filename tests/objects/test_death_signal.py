from harness.flavours import workload_test

test_death_signal = workload_test("death_signal")
