from harness.flavours import workload_test

test_fifos = workload_test("fifos")
