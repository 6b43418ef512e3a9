from harness.flavours import Flavour, workload_test

# In the host's ipc namespace its objects are everybody's and are not dumped; nor may a test leave any there.
test_sysv_ipc = workload_test("sysv_ipc", flavours=(Flavour.CONTROL, Flavour.JOB), prefix=("unshare", "--ipc"))
