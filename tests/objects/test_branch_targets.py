import os

from harness.flavours import workload_test

if os.uname().machine == "aarch64":  # elsewhere there are none
    test_branch_targets = workload_test("branch_targets")
