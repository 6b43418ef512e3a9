from harness.flavours import workload_test

test_inotify = workload_test("inotify")
