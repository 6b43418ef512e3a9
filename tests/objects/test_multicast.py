from harness.flavours import Flavour, workload_test

test_multicast = workload_test("multicast", flavours=(Flavour.CONTROL, Flavour.HOST, Flavour.HOST_RUNNING))
