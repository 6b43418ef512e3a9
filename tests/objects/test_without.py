"""Kernels, or sandboxes, that lack something: what comes in its place is as good, or is refused by name."""

import pytest

from harness import engine, without
from harness.flavours import Flavour, carry_through, start
from harness.rounds import rounds

pytestmark = pytest.mark.root

#: Those that meet what is taken away.  (A mount namespace of its own does not go without mount_setattr yet.)
WORKLOADS = ("private_memory", "posix_timers", "threads", "unix_pairs")[: rounds(in_ci=2, in_full=4)]
#: In CI all that came since 5.10 is taken away at once; by hand each thing alone, too.
TAKEN = [
    name
    for name in without.TAKEN
    if name not in without.NEEDED and (name == "linux-5.10" or rounds(in_ci=0, in_full=1))
]
FLAVOURS = [Flavour.HOST]


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("name", TAKEN)
def test_it_goes_without(name: str, workload: str, flavour: Flavour) -> None:
    with start(flavour, workload) as running:
        running.wait_ready()
        with engine.using(without.engine(name)):
            carry_through(flavour, running)
        running.expect_pass()


@pytest.mark.parametrize("name", ["pidfd_getfd", "kcmp"])
def test_what_a_dump_needs_is_named_and_nobody_is_harmed(name: str) -> None:
    with start(Flavour.HOST, "threads") as running:
        running.wait_ready()
        with engine.using(without.engine(name)), pytest.raises(engine.EngineError, match=f"{name}: Function not impl"):
            carry_through(Flavour.HOST, running)
        running.expect_pass()


@pytest.mark.parametrize("name", ["close_range", "openat2"])
def test_what_a_restore_needs_is_named_and_may_be_tried_again(name: str) -> None:
    with start(Flavour.HOST, "threads") as running:
        running.wait_ready()
        running.dump()
        with engine.using(without.engine(name)), pytest.raises(engine.EngineError, match=f"{name}.*Function not impl"):
            running.restore()
        running.restore()
        running.expect_pass()
