from harness.flavours import Flavour, workload_test

# The workload makes a namespace of its own in any case.
test_mounts = workload_test("mounts", flavours=(Flavour.CONTROL, Flavour.HOST, Flavour.JOB))
