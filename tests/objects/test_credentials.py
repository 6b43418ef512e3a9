from harness.flavours import workload_test

test_credentials = workload_test("credentials")
