from harness.flavours import workload_test

test_counter = workload_test("counter")
