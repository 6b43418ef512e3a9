"""Kernels, or sandboxes, that lack something: what comes in its place is as good, or is refused by name."""

import re
from pathlib import Path

import pytest

import torpor
from harness import engine, without
from harness.flavours import Flavour, carry_through, start
from harness.rounds import rounds
from harness.skips import need_mounted_root
from torpor.kernel.arch import nr

pytestmark = pytest.mark.root

#: Those that meet what is taken away.
WORKLOADS = ("private_memory", "posix_timers", "threads", "unix_pairs")[: rounds(in_ci=2, in_full=4)]
#: In CI all that came since 5.10 is taken away at once; by hand each thing alone, too.
TAKEN = [
    name
    for name in without.TAKEN
    if name not in without.NEEDED and (name == "linux-5.10" or rounds(in_ci=0, in_full=1))
]
FLAVOURS = [Flavour.HOST, Flavour.FRESH]


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("name", TAKEN)
def test_it_goes_without(name: str, workload: str, flavour: Flavour) -> None:
    with start(flavour, workload) as running:
        running.wait_ready()
        with engine.using(without.engine(name)):
            carry_through(flavour, running)
        running.expect_pass()


@pytest.mark.parametrize("workload", ["mounts", "nested_mounts"])
def test_mounts_that_belong_together_are_named(workload: str) -> None:
    need_mounted_root()
    with start(Flavour.HOST, workload) as running:
        running.wait_ready()
        with engine.using(without.engine("linux-5.10")):
            with pytest.raises(engine.EngineError, match=r"hands on .* needs MOVE_MOUNT_SET_GROUP") as refused:
                running.dump()
            assert "dump: collect" not in refused.value.log
            # Who goes on loses nothing.
            running.dump(leave_running=True)
        running.dump()
        with (
            engine.using(without.engine("linux-5.10")),
            pytest.raises(engine.EngineError, match=r"hands on .* needs MOVE_MOUNT_SET_GROUP"),
        ):
            running.restore()
        # Mounts are changed by mount(2), if need be.
        with engine.using(without.engine("mount_setattr")):
            running.restore()
        running.expect_pass()


def test_all_calls_since_5_10_are_taken_away() -> None:
    """Numbers are given out in order, the same for all machines, and 5.10 ends with process_madvise."""
    source = "".join(path.read_text() for path in (Path(torpor.__file__).parent).rglob("*.py"))
    used = {name for name in re.findall(r"\bnr\.(\w+)", source) if getattr(nr, name) > nr.process_madvise}
    assert {"mount_setattr", "mseal", "landlock_create_ruleset"} <= used
    taken = {rule.call for name in without.AFTER_5_10 for rule in without.TAKEN[name] if rule.arg is None}
    assert not {name for name in used if getattr(nr, name) not in taken}


def test_dispatched_calls_are_found_where_no_kernel_tells() -> None:
    """As before 6.4: by the SIGSYS that comes of a call for us, which the program is not told."""
    with start(Flavour.HOST, "confined", ["dispatch", "busy"]) as running:
        running.wait_ready()
        with engine.using(without.engine("user_dispatch")), pytest.raises(engine.EngineError, match="its own handler"):
            carry_through(Flavour.HOST, running)
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
