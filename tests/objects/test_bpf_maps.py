from harness.flavours import workload_test

test_bpf_maps = workload_test("bpf_maps")
