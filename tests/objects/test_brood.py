"""Many processes, side by side and each the parent of the next, with threads, stopped ones and dead ones."""

from harness.flavours import workload_test

test_wide = workload_test("brood", args=("wide", "12", "2", "3", "3"))
test_deep = workload_test("brood", args=("deep", "12", "1"))
