from harness.flavours import workload_test

test_names = workload_test("names")
