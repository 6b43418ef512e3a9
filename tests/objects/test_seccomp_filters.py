from harness.flavours import workload_test

test_seccomp_filters = workload_test("seccomp_filters")
