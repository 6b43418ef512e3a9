"""time namespace: what the monotonic and boot-time clocks show.

Kernel view
    ``/proc/PID/timens_offsets``, added to our own clocks.
Image
    ``timens_entry``: both clocks as they were in the namespace.  Under the id 0, as CRIU has it, those of a tree that
    shares the dumper's namespace.
Restore
    The stub makes the namespace, is told the offsets that let the clocks go on from there, and clones the root into it;
    a root that has the stub's address space enters it.  A thread of ours clones where the root is to be a sibling.
    Whoever had none of its own gets one where our clocks show anything but what its own would after a moment's stall:
    after a reboot, on another host, or some time later.
Limits
    A namespace that the caller has the tree join (``--join-ns time:``) has the clocks that it has: where they differ by
    more than a moment's stall, the jump is told.
    Where a namespace cannot be made (no CAP_SYS_ADMIN, a kernel without), a tree that had none is told to have a jump.
    The clocks of CPU time start at zero, and the processor's counter (rdtsc) is the machine's.
"""

from __future__ import annotations

import os
import struct
import time

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import ImageStore, load_one, store_one
from torpor.kernel.arch import nr
from torpor.kernel.namespaces import CLONE_NEWTIME, setns, unshare
from torpor.objects import moment
from torpor.objects.ns.model import NsDump
from torpor.tracee.batch import Batch
from torpor.tracee.puppet import Channel
from torpor.tracee.remote import Runner

_SECOND = 1_000_000_000
#: Image field, and name in timens_offsets.
_CLOCKS = ("monotonic", "boottime")
_TIMES = struct.Struct("=qq")
#: The image id of the clocks of a tree without a namespace of its own.
OUTER = 0
#: A program may be kept from running for that long on any machine: no reason to move it into a namespace.
STALL_S = 2
#: What it takes to read three clocks, and how often that is tried: a tree stands still meanwhile, and a slow machine
#: never gets there.
_MOMENT_NS, _TRIES = 5_000, 10


def dump(session: NsDump) -> None:
    """Write what the monotonic and the boot-time clock show in the namespace now."""
    offsets, ours = moment.offsets(session.pid), moment.offsets("self")
    entry = m.timens_entry()
    for name, shown in _own_clocks().items():
        found = entry.monotonic if name == "monotonic" else entry.boottime
        found.tv_sec, found.tv_nsec = divmod(shown - ours[name] + offsets[name], _SECOND)
    store_one(session.store, "TIMENS", entry, session.ident)


def dump_outer(store: ImageStore) -> None:
    """Both clocks of a tree in our own time namespace."""
    entry = m.timens_entry()
    for name, shown in _own_clocks().items():
        found = entry.monotonic if name == "monotonic" else entry.boottime
        found.tv_sec, found.tv_nsec = divmod(shown, _SECOND)
    store_one(store, "TIMENS", entry, OUTER)


def is_wanted(store: ImageStore) -> bool:
    """Whether a tree that had no namespace of its own needs one to have its clocks go on."""
    if not store.exists(kinds.TIMENS.file_name(OUTER)) or go_on_here(store):
        return False
    gone = _gone_by(load_one(store, kinds.TIMENS, OUTER), _own_clocks())
    if not os.path.exists("/proc/self/timens_offsets"):
        _warn(gone, "this kernel has no time namespaces")
        return False
    log.info("the clocks here are others: " + _jumps(gone) + "; the tree gets a time namespace in which they go on")
    return True


def go_on_here(store: ImageStore) -> bool:
    """Whether our own clocks show nothing but what a tree that shared the dumper's would see after a stall."""
    if not store.exists(kinds.TIMENS.file_name(OUTER)):
        return False
    return not _is_jump(_gone_by(load_one(store, kinds.TIMENS, OUTER), _own_clocks()))


def check_joined(store: ImageStore, ident: int, fd: int) -> None:
    """Tell by how much the clocks of the namespace behind *fd*, which the tree joins, differ from the tree's."""
    name = next((number for number in (ident, OUTER) if store.exists(kinds.TIMENS.file_name(number))), None)
    if name is None:
        return
    gone = _gone_by(load_one(store, kinds.TIMENS, name), _clocks_in(fd))
    if _is_jump(gone):
        _warn(gone, "the time namespace that they join has other clocks")


def _clocks_in(fd: int) -> dict[str, int]:
    """What the clocks show in the time namespace behind *fd*: only a process of one thread can enter it."""
    from torpor.kernel import errand

    us, told = os.getpid(), b""
    read, written = os.pipe2(os.O_CLOEXEC)
    with OwnedFd(read), OwnedFd(written) as writer:

        def go() -> None:
            setns(fd, CLONE_NEWTIME)
            errand.go_with(us)
            os.write(written, _TIMES.pack(*_own_clocks().values()))

        with errand.sent(go):
            writer.close()
            told = os.read(read, _TIMES.size)
    if len(told) != _TIMES.size:
        raise RestoreError("--join-ns time: its clocks cannot be read", hint="that needs CAP_SYS_ADMIN")
    return dict(zip(_CLOCKS, _TIMES.unpack(told), strict=True))


def _own_clocks() -> dict[str, int]:
    """Both in one moment: who is kept from running between the two has one that is late, and tries again."""
    found = []
    for _ in range(_TRIES):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        boottime = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        took_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - before
        found.append((took_ns, {"monotonic": before + took_ns // 2, "boottime": boottime}))
        if took_ns < _MOMENT_NS:
            break
    return min(found, key=lambda each: each[0])[1]


def _is_jump(gone: dict[str, int]) -> bool:
    return not all(0 <= one < STALL_S * _SECOND for one in gone.values())


def _gone_by(entry: m.timens_entry, clocks: dict[str, int]) -> dict[str, int]:
    """By how many nanoseconds *clocks* are ahead of those in the image."""
    return {name: shown - _shown(entry, name) for name, shown in clocks.items()}


def _shown(entry: m.timens_entry, name: str) -> int:
    shown = entry.monotonic if name == "monotonic" else entry.boottime
    return shown.tv_sec * _SECOND + shown.tv_nsec


def _warn(gone: dict[str, int], why: str) -> None:
    log.warn(
        f"the clocks of the restored processes jump ({_jumps(gone)}), and what waits for a time does so wrongly: {why}"
    )


def _jumps(gone: dict[str, int]) -> str:
    return ", ".join(f"{name} by {one / _SECOND:+.3f} s" for name, one in gone.items())


def prepare(store: ImageStore, ident: int, stub: Runner) -> int | None:
    """Have what *stub* clones from now on be born into a new time namespace.

    How far its monotonic clock is ahead of ours, in nanoseconds; None where there is no such namespace.
    """
    batch = Batch()
    made = batch.call(nr.unshare, CLONE_NEWTIME, may_fail=True)
    stub.run(batch)
    entry = load_one(store, kinds.TIMENS, ident)
    if made.errno:
        _without(ident, entry, made.errno)
        return None
    return _set_clocks(stub.tid, ident, entry)


def enter(puppet: Runner, channel: Channel) -> None:
    """Have *puppet* itself enter the namespace that its children would be born into, if that is another one."""
    links = [f"/proc/{puppet.tid}/ns/{name}" for name in ("time_for_children", "time")]
    if not os.path.exists(links[0]) or os.path.samefile(*links):
        return  # none could be made, as ``prepare`` has told
    with OwnedFd(os.open(links[0], os.O_RDONLY | os.O_CLOEXEC)) as made:
        number = channel.lend(puppet, [made.fileno()])[0]
    batch = Batch()
    batch.call(nr.setns, number, CLONE_NEWTIME)
    batch.call(nr.close, number)
    puppet.run(batch)


def prepare_thread(store: ImageStore, ident: int) -> int | None:
    """The same for what the calling thread of ours clones."""
    import threading

    entry = load_one(store, kinds.TIMENS, ident)
    try:
        unshare(CLONE_NEWTIME)
    except OSError as error:
        _without(ident, entry, error.errno or 0)
        return None
    return _set_clocks(Pid(threading.get_native_id()), ident, entry)


def _without(ident: int, entry: m.timens_entry, errno: int) -> None:
    """No namespace can be made: RestoreError for a tree that had one, a warning for one that had none."""
    why = f"a time namespace cannot be made ({os.strerror(errno)}): that needs CAP_SYS_ADMIN and CAP_SYS_TIME"
    if ident != OUTER:
        raise RestoreError(why, hint="restore as root")
    _warn(_gone_by(entry, _own_clocks()), why)


def _set_clocks(tid: Pid, ident: int, entry: m.timens_entry) -> int | None:
    """Have the clocks of the namespace that *tid* has made for its children go on from where they were.

    Its offsets are from the machine's clocks, whatever namespace we are in ourselves.
    """
    ours = moment.offsets("self")
    lines, wanted = [], {}
    for name, shown in _own_clocks().items():
        wanted[name] = _shown(entry, name) - (shown - ours[name])
        seconds, nanoseconds = divmod(wanted[name], _SECOND)
        lines.append(f"{name} {seconds} {nanoseconds}\n")
    try:
        with open(f"/proc/{tid}/timens_offsets", "w", encoding="ascii") as stream:
            stream.write("".join(lines))
    except PermissionError as error:
        _without(ident, entry, error.errno or 0)
        return None
    except OSError as error:
        raise RestoreError(f"the clocks of the time namespace cannot be set: {error}") from error
    return wanted["monotonic"] - ours["monotonic"]
