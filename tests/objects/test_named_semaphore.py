from harness.flavours import workload_test

test_named_semaphore = workload_test("named_semaphore")
