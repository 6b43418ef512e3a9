from harness.flavours import workload_test

test_posix_timers = workload_test("posix_timers")
