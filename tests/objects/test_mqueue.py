from harness.flavours import Flavour, workload_test

test_mqueue = workload_test("mqueue", prefix=("unshare", "--ipc"))

# Queues of a namespace that others have as well stay there; but for the deleted one, of which nobody else knows.
test_mqueue_of_everybody = workload_test("mqueue", flavours=(Flavour.HOST, Flavour.HOST_RUNNING))
