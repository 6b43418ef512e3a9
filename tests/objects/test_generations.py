"""A parent and its child whose memory, private and shared, has changed since they were born."""

from harness.flavours import Flavour, workload_test

test_generations = workload_test("generations", flavours=(Flavour.CONTROL, Flavour.JOB))
