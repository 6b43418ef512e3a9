"""The ways in which one and the same workload is tested, and the list of those that every workload goes through."""

import enum
import os
from collections.abc import Callable, Sequence

import pytest

from harness.skips import need_mounted_root
from harness.workload import Workload


class Flavour(enum.StrEnum):
    """What happens to a workload between being ready and checking itself."""

    CONTROL = "control"
    """Nothing. If this fails, the workload is wrong, or the kernel is."""

    HOST = "host"
    """In the host's namespaces: dumped, killed by the dump, restored."""

    HOST_RUNNING = "host-running"
    """In the host's namespaces: dumped, and left running; the original checks that the dump did not disturb it."""

    JOB = "job"
    """In pid, mount, uts and ipc namespaces of its own: dumped, killed by the dump, restored."""

    FRESH = "fresh"
    """In pid, mount, uts, ipc and network namespaces of its own: dumped, killed by the dump, restored."""

    USER = "user"
    """The same, and in a user namespace with a map of ids."""


#: What workload_test runs unless told otherwise. Switch a flavour on here once the engine can do it.
DEFAULT_FLAVOURS: tuple[Flavour, ...] = (
    Flavour.CONTROL, Flavour.HOST, Flavour.HOST_RUNNING, Flavour.JOB, Flavour.FRESH, Flavour.USER,
)  # fmt: skip

#: What the root of a user namespace may not do: these workloads do not even become ready there.
NOT_FOR_USER: dict[str, str] = {
    "bpf_maps": "bpf(2) is for the host's root",
    "copy_on_write": "page frame numbers are for the host's root",
    "fanotify": "its unlimited queue is for the host's root",
    "scheduling": "real-time policies are for the host's root",
}


def default_flavours() -> tuple[Flavour, ...]:
    """DEFAULT_FLAVOURS, or what $TORPOR_FLAVOURS names ("control,host") to try others by hand."""
    chosen = os.environ.get("TORPOR_FLAVOURS")
    return tuple(Flavour(name.strip()) for name in chosen.split(",")) if chosen else DEFAULT_FLAVOURS


def start(flavour: Flavour, name: str, args: Sequence[str] = (), prefix: Sequence[str] = ()) -> Workload:
    """Start a workload the way the flavour wants it; outside of a job by the command *prefix*, see `Workload.start`."""
    if flavour is Flavour.JOB:
        return Workload.start_in_job(name, args)
    if flavour is Flavour.USER:
        need_mounted_root()
    if flavour in (Flavour.FRESH, Flavour.USER):
        return Workload.start_fresh(name, args, user=flavour is Flavour.USER)
    return Workload.start(name, args, prefix=prefix)


def carry_through(
    flavour: Flavour, workload: Workload, *, dump_options: Sequence[str] = (), restore_options: Sequence[str] = ()
) -> None:
    """Do to a workload that is ready what the flavour does. The options are `criu`'s, for the dump and the restore."""
    if flavour is Flavour.CONTROL:
        return
    workload.dump(leave_running=flavour is Flavour.HOST_RUNNING, options=dump_options)
    if flavour is not Flavour.HOST_RUNNING:
        workload.restore(options=restore_options)


def workload_test(
    name: str,
    args: Sequence[str] = (),
    *,
    flavours: Sequence[Flavour] | None = None,
    dump_options: Sequence[str] = (),
    restore_options: Sequence[str] = (),
    prefix: Sequence[str] = (),
    need: Callable[[], None] | None = None,
) -> Callable[[Flavour], None]:
    """A test, in each flavour, of tests/workloads/NAME.c: `test_counter = workload_test("counter")`.

    *need* skips it where something is missing.
    """
    chosen = default_flavours() if flavours is None else tuple(flavours)
    if name in NOT_FOR_USER:
        chosen = tuple(flavour for flavour in chosen if flavour is not Flavour.USER)
    parameters = [
        pytest.param(flavour, id=flavour.value, marks=() if flavour is Flavour.CONTROL else (pytest.mark.root,))
        for flavour in chosen
    ]

    @pytest.mark.parametrize("flavour", parameters)
    def test(flavour: Flavour) -> None:
        if need is not None:
            need()
        with start(flavour, name, args, prefix) as workload:
            workload.wait_ready()
            carry_through(flavour, workload, dump_options=dump_options, restore_options=restore_options)
            workload.expect_pass()

    return test
