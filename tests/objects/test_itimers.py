from harness.flavours import workload_test

test_itimers = workload_test("itimers")
