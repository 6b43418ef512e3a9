"""POSIX timers: timer_create(2) and its kin.

Kernel view
    ``/proc/PID/timers`` tells id, clock, signal, value and whom it notifies; timer_gettime(2) and timer_getoverrun(2)
    inside the task tell the rest.
Image
    ``posix_timer_entry``; ``notify_thread_id`` for those that signal one thread.  ``task_timers_entry.torpor_at_ns``:
    what the monotonic clock showed then.
Restore
    Created with its id (PR_TIMER_CREATE_RESTORE_IDS, Linux 6.15; before, by creating and deleting timers until the id
    comes up), while we have our privileges and all threads exist; armed as the very last call before the task goes on,
    by the monotonic clock that the task sees, or with what remains by it.
Limits
    Without that call ids from 1,000,000 on take too long: a dump that would end their tree refuses, and so does a
    restore.
    The count of overruns starts from zero.  An absolute time becomes a relative one: a restored timer does not follow
    later changes of the wall clock.  A timer on a thread's own CPU clock is taken for the main thread's, or for that of
    the thread which it signals: the kernel does not tell which thread made it.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

from torpor.base import log
from torpor.base.errors import RefusedError, RestoreError
from torpor.base.ids import Pid
from torpor.base.records import dataclass
from torpor.images import messages as m
from torpor.kernel.arch import nr
from torpor.kernel.procfs.small import read_small
from torpor.kernel.syscall import syscall
from torpor.kernel.uapi.siginfo import SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD, SIGEV_THREAD_ID
from torpor.kernel.uapi.time import TIMER_ABSTIME
from torpor.objects import moment
from torpor.objects.model import DumpProcess, RestoreProcess, RestoreThread
from torpor.tracee.batch import Batch, Data, RemoteCallError
from torpor.tracee.remote import Runner

PR_TIMER_CREATE_RESTORE_IDS = 77
_RESTORE_IDS_OFF = 0
_RESTORE_IDS_ON = 1
_RESTORE_IDS_GET = 2
_NOTIFY = {"signal": SIGEV_SIGNAL, "none": SIGEV_NONE, "thread": SIGEV_THREAD}
_ITIMERSPEC = struct.Struct("<4q")
_SIGEVENT = struct.Struct("<Qiii44x")
_NSEC = 1000000000
_ID_LIMIT = 1 << 31
#: Seconds; a program that makes a timer for each thing that it does comes this far in days.
_IDS_BY_TRIAL = 1000000
_TRIALS_PER_BATCH = 500
_THREAD_CLOCK = -2 & 0xFFFFFFFF
_KEYS = ("ID: ", "signal: ", "notify: ", "ClockID: ")


@dataclass(frozen=True, slots=True)
class Timer:
    """One entry of ``/proc/PID/timers``; ``thread`` is the id of the thread signalled, or 0."""

    number: int
    clock: int
    signal: int
    value: int
    notify: int
    thread: Pid


def parse_timers(text: str) -> Iterator[Timer]:
    """All of the file."""
    lines = text.splitlines()
    for start in range(0, len(lines) - len(_KEYS) + 1, len(_KEYS)):
        block = zip(_KEYS, lines[start : start + len(_KEYS)], strict=True)
        number, signalled, notified, clock = (line.removeprefix(key) for key, line in block)
        signo, value = signalled.split("/")
        how, whom = notified.split("/")
        kind, _, pid = whom.partition(".")
        is_thread = kind == "tid"
        yield Timer(
            number=int(number), clock=int(clock), signal=int(signo), value=int(value, 16),
            notify=_NOTIFY[how] | (SIGEV_THREAD_ID if is_thread else 0), thread=Pid(int(pid) if is_thread else 0),
        )  # fmt: skip


def check(process: DumpProcess) -> None:
    """RefusedError for a timer of a running process to which this kernel could not give its id again."""
    if _are_given():
        return
    last = max((timer.number for timer in parse_timers(read_small(f"/proc/{process.pid}/timers"))), default=0)
    if last >= _IDS_BY_TRIAL:
        raise RefusedError(
            f"{process.describe()} has POSIX timer {last}, whose id this kernel could not give it again",
            hint="restart the program: each timer that it makes has a higher one; to restore it on Linux 6.15 or "
            "newer, checkpoint it with --leave-running and end it then",
        )


def _are_given() -> bool:
    try:
        syscall("prctl", nr.prctl, PR_TIMER_CREATE_RESTORE_IDS, _RESTORE_IDS_GET, 0, 0, 0)
    except OSError:
        return False
    return True


def dump(process: DumpProcess, batch: Batch) -> None:
    """Fill in ``timers.posix`` with the process's timers, of which the task itself is asked the rest."""
    found = sorted(parse_timers(read_small(f"/proc/{process.pid}/timers")), key=lambda timer: timer.number)
    for timer in found:
        _dump_one(process, timer, batch)
    if found:
        at = moment.ask(batch)
        batch.then(lambda: setattr(process.core.tc.timers, "torpor_at_ns", moment.told(at)))


def _dump_one(process: DumpProcess, timer: Timer, batch: Batch) -> None:
    entry = process.core.tc.timers.posix.add()
    entry.it_id, entry.clock_id = timer.number, timer.clock & 0xFFFFFFFF
    entry.si_signo, entry.sival_ptr = timer.signal, timer.value
    entry.it_sigev_notify = timer.notify
    if timer.notify & SIGEV_THREAD_ID:
        known = {thread.tid: thread.ns_tid for thread in process.threads}
        if timer.thread not in known:
            raise RefusedError(
                f"{process.describe()}: POSIX timer {timer.number} signals a thread that has ended",
                hint="it can be carried once the program has deleted it",
            )
        entry.notify_thread_id = known[timer.thread]
    if entry.clock_id == _THREAD_CLOCK and len(process.threads) > 1:
        log.warn(f"{process.describe()}: POSIX timer {timer.number} is on the CPU clock of a thread that is not known")
    room = batch.out(_ITIMERSPEC.size)
    batch.call(nr.timer_gettime, timer.number, room)
    overrun = batch.call(nr.timer_getoverrun, timer.number)

    def collect() -> None:
        entry.isec, entry.insec, entry.vsec, entry.vnsec = _ITIMERSPEC.unpack(room.bytes())
        entry.overrun = overrun.value

    batch.then(collect)


def restore(process: RestoreProcess, batch: Batch) -> None:
    """Create the timers in their places, at once (*batch* is not used); threads that come last are waited for."""
    del batch
    if process.threads[-1].made is None:
        return
    entries = sorted(process.core.tc.timers.posix, key=lambda entry: entry.it_id)
    if not entries:
        return
    for entry, after in zip(entries, [*entries[1:], None], strict=True):
        is_sane = entry.it_id < _ID_LIMIT and max(entry.insec, entry.vnsec) < _NSEC
        if not is_sane or max(entry.isec, entry.vsec) >= 1 << 62 or (after and after.it_id == entry.it_id):
            raise RestoreError(f"pid {process.ns_pid}: the image has a POSIX timer with impossible values")
    if _has_restore_ids(process.runner):
        for thread in process.threads:
            _create_with_ids(thread, [entry for entry in entries if _maker_of(process, entry) is thread])
    else:
        _create_by_trial(process, entries)


def arm(process: RestoreProcess, batch: Batch) -> None:
    """Start those that were running: of the monotonic clock by that, so that the kernel counts what was missed."""
    at_ns = process.core.tc.timers.torpor_at_ns
    for entry in process.core.tc.timers.posix:
        value, flags = (entry.vsec, entry.vnsec), 0
        if value == (0, 0):
            continue
        if at_ns and entry.clock_id == time.CLOCK_MONOTONIC:
            value, flags = divmod(at_ns + entry.vsec * _NSEC + entry.vnsec, _NSEC), TIMER_ABSTIME
        packed = batch.data(_ITIMERSPEC.pack(entry.isec, entry.insec, *value))
        batch.call(nr.timer_settime, entry.it_id, flags, packed, 0)


def _maker_of(process: RestoreProcess, entry: m.posix_timer_entry) -> RestoreThread:
    """The thread that creates the timer: it matters for a thread's CPU clock only."""
    if entry.clock_id == _THREAD_CLOCK and entry.it_sigev_notify & SIGEV_THREAD_ID:
        return next((each for each in process.threads if each.ns_tid == entry.notify_thread_id), process.threads[0])
    return process.threads[0]


def _has_restore_ids(runner: Runner) -> bool:
    batch = Batch()
    answer = batch.call(nr.prctl, PR_TIMER_CREATE_RESTORE_IDS, _RESTORE_IDS_ON, 0, 0, 0, may_fail=True)
    batch.call(nr.prctl, PR_TIMER_CREATE_RESTORE_IDS, _RESTORE_IDS_OFF, 0, 0, 0, may_fail=True)
    runner.run(batch)
    return not answer.errno


def _create_with_ids(thread: RestoreThread, entries: list[m.posix_timer_entry]) -> None:
    for start in range(0, len(entries), _TRIALS_PER_BATCH):
        batch = Batch()
        batch.call(nr.prctl, PR_TIMER_CREATE_RESTORE_IDS, _RESTORE_IDS_ON, 0, 0, 0)
        for entry in entries[start : start + _TRIALS_PER_BATCH]:
            _add_create(entry, batch.data(entry.it_id.to_bytes(8, "little")), batch)
        batch.call(nr.prctl, PR_TIMER_CREATE_RESTORE_IDS, _RESTORE_IDS_OFF, 0, 0, 0)
        _run(thread, batch)


def _create_by_trial(process: RestoreProcess, entries: list[m.posix_timer_entry]) -> None:
    """A new process gives ids from zero upwards: timers that nobody wants are made and deleted in between."""
    if entries[-1].it_id >= _IDS_BY_TRIAL:
        raise RestoreError(
            f"pid {process.ns_pid}: POSIX timer {entries[-1].it_id} cannot be given its id by this kernel",
            hint="Linux 6.15 and later can",
        )
    wanted = {entry.it_id: entry for entry in entries}
    for start in range(0, entries[-1].it_id + 1, _TRIALS_PER_BATCH):
        batch = Batch()
        got = []
        for number in range(start, min(start + _TRIALS_PER_BATCH, entries[-1].it_id + 1)):
            room = batch.out(8)
            if number in wanted:
                _add_create(wanted[number], room, batch)
                got.append((number, room))
            else:
                batch.call(nr.timer_create, 1, batch.data(_SIGEVENT.pack(0, 0, SIGEV_NONE, 0)), room)
                batch.call(nr.timer_delete, number)
        _run(process.threads[0], batch)
        for number, room in got:
            if int.from_bytes(room.bytes()[:4], "little") != number:
                raise RestoreError(f"pid {process.ns_pid}: this kernel does not give POSIX timer ids in order")


def _add_create(entry: m.posix_timer_entry, room: Data, batch: Batch) -> None:
    clock = entry.clock_id - (1 << 32) if entry.clock_id >= 1 << 31 else entry.clock_id
    event = _SIGEVENT.pack(entry.sival_ptr, entry.si_signo, entry.it_sigev_notify, entry.notify_thread_id)
    batch.call(nr.timer_create, clock, batch.data(event), room)


def _run(thread: RestoreThread, batch: Batch) -> None:
    try:
        thread.runner.run(batch)
    except RemoteCallError as error:
        raise RestoreError(f"pid {thread.process.ns_pid}: a POSIX timer cannot be made: {error}") from error
