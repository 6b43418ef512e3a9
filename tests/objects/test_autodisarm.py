from harness.flavours import workload_test

test_autodisarm = workload_test("autodisarm")
