from harness.flavours import workload_test

test_seccomp_strict = workload_test("seccomp_strict")
