from harness.flavours import workload_test

test_shared_anonymous = workload_test("shared_anonymous")
