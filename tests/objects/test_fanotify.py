from harness.flavours import workload_test

test_fanotify = workload_test("fanotify")
