"""timerfd(2): a timer behind a descriptor.

Kernel view
    fdinfo gives clock, ticks, settime flags, and the remaining time and the interval in seconds and nanoseconds.  A
    periodic timer that has expired stands still until it is read, with nothing remaining; timerfd_gettime(2) makes
    it go on and counts the ticks that it has missed, exactly as a read would.
Image
    ``timerfd_entry``.  ``torpor_expiry_ns``: when an absolute timer of a wall clock is due by that clock.
    ``torpor_at_ns``: what the monotonic clock of the tree showed when any other was read.
Restore
    timerfd_settime(2), then the ticks by TFD_IOC_SET_TICKS.  Absolute timers of a wall clock are due when they were;
    the others when they would have been by the clock that the tree sees, with the ticks that are missed by then, or, in
    images that do not say when they were read, after the time that remained.
Limits
    A timer cancelled by a change of the clock (TFD_TIMER_CANCEL_ON_SET) that nobody has read yet loses that news.
"""

from __future__ import annotations

import fcntl
import struct
import time

from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel.arch import nr
from torpor.kernel.procfs.task import read_fdinfo
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.time import CLOCK_REALTIME, CLOCK_REALTIME_ALARM
from torpor.kernel.uapi.timerfd import TFD_CLOEXEC, TFD_IOC_SET_TICKS, TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET
from torpor.objects import moment
from torpor.objects.files import fown, status_flags
from torpor.objects.files.model import FileKind, OpenFile
from torpor.objects.session import DumpContext, RestoreContext

_LINK = "anon_inode:[timerfd]"
# CLOCK_REALTIME, MONOTONIC, BOOTTIME and the last two's _ALARM forms: what timerfd_create takes.
_CLOCKS = (CLOCK_REALTIME, 1, 7, CLOCK_REALTIME_ALARM, 9)
_NS = 10**9
_MAX_S = (1 << 63) // _NS
_itimerspec = struct.Struct("4q")


def matches(file: OpenFile) -> bool:
    """By the link's text."""
    return file.target == _LINK


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Fill in ``entry.tfd``: clock, times and ticks.  An expired periodic timer goes on because of it."""
    tfd = entry.tfd
    tfd.id, tfd.flags = entry.id, file.flags
    fown.fill(tfd.fown, file)
    # An expired periodic timer goes on from here, so that remaining time and ticks belong together.
    unused = bytearray(_itimerspec.size)
    syscall("timerfd_gettime", nr.timerfd_gettime, file.fd, address_of(unused))
    state = read_fdinfo("self", file.fd)
    if state["it_value"] == "(0, 0)" and state["ticks"] == "0":
        # Not armed, or at the very instant of its expiry, before the tick was counted.
        state = read_fdinfo("self", file.fd)
    tfd.clockid = int(state["clockid"])
    tfd.ticks = int(state["ticks"])
    tfd.settime_flags = int(state["settime flags"], 8)
    tfd.vsec, tfd.vnsec = _pair(state["it_value"])
    tfd.isec, tfd.insec = _pair(state["it_interval"])
    remaining_ns = tfd.vsec * _NS + tfd.vnsec
    by_wall_clock = tfd.settime_flags & TFD_TIMER_ABSTIME and tfd.clockid in (CLOCK_REALTIME, CLOCK_REALTIME_ALARM)
    if remaining_ns and by_wall_clock:
        tfd.torpor_expiry_ns = time.time_ns() + remaining_ns
    elif remaining_ns:
        tfd.torpor_at_ns = context.part(moment.Clock).now_ns()


def _pair(text: str) -> tuple[int, int]:
    seconds, _, nanoseconds = text.strip("()").partition(",")
    return int(seconds), int(nanoseconds)


def restore(entry: m.file_entry, context: RestoreContext) -> int:
    """A new timerfd that goes on from where it was."""
    tfd = entry.tfd
    if tfd.clockid not in _CLOCKS or max(tfd.vsec, tfd.isec) >= _MAX_S or max(tfd.vnsec, tfd.insec) >= _NS:
        raise ImageError(f"timerfd {entry.id}: clock {tfd.clockid} or its times are out of range")
    fd = syscall("timerfd_create", nr.timerfd_create, tfd.clockid, TFD_CLOEXEC)
    ticks = tfd.ticks
    if tfd.vsec or tfd.vnsec or tfd.isec or tfd.insec:
        ticks += _arm(fd, tfd, moment.gone_ns(context, tfd.torpor_at_ns))
    if ticks:
        _set_ticks(fd, ticks)
    status_flags.restore(fd, tfd.flags)
    return fd


def _arm(fd: int, tfd: m.timerfd_entry, gone_ns: int) -> int:
    """Have it go on; how often it has expired since it was read."""
    missed = 0
    flags = tfd.settime_flags & (TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET)
    interval_ns = tfd.isec * _NS + tfd.insec
    value_ns = tfd.vsec * _NS + tfd.vnsec
    if not value_ns and tfd.ticks:
        # It has expired and was not read since (images by CRIU): the next tick is at most an interval away.
        value_ns = interval_ns
    elif value_ns and interval_ns and value_ns <= gone_ns:
        missed, since_ns = divmod(gone_ns - value_ns, interval_ns)
        missed, value_ns = missed + 1, interval_ns - since_ns
    elif value_ns:
        value_ns = moment.left_ns(value_ns, gone_ns)
    if value_ns and flags & TFD_TIMER_ABSTIME:
        value_ns = tfd.torpor_expiry_ns or time.clock_gettime_ns(_readable(tfd.clockid)) + value_ns
    spec = bytearray(_itimerspec.pack(*divmod(interval_ns, _NS), *divmod(value_ns, _NS)))
    syscall("timerfd_settime", nr.timerfd_settime, fd, flags, address_of(spec), 0)
    return missed


def _readable(clock: int) -> int:
    """The clock that an alarm clock shows."""
    return {8: 0, 9: 7}.get(clock, clock)


def _set_ticks(fd: int, ticks: int) -> None:
    try:
        fcntl.ioctl(fd, TFD_IOC_SET_TICKS, struct.pack("Q", ticks))
    except OSError as error:
        raise RestoreError(
            f"a timerfd has {ticks} unread expirations, which this kernel cannot set: {error.strerror}",
            hint="a kernel with CONFIG_CHECKPOINT_RESTORE is needed",
        ) from error


KIND = FileKind("timerfd", m.fd_types.TIMERFD, matches, dump, restore)
