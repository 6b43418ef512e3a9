from harness.flavours import workload_test

test_signals = workload_test("signals")
