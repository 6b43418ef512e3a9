"""Signal actions, masks, alternate stacks, and pending signals with their siginfo.

Kernel view
    rt_sigaction and sigaltstack inside the task; masks and pending signals by ptrace.
Image
    ``task_core_entry.sigactions`` (all but SIGKILL and SIGSTOP, in order), ``blk_sigset``, ``signals_s``;
    ``thread_core_entry.blk_sigset``, ``sas``, ``signals_p``.
Restore
    rt_sigaction, sigaltstack, and rt_(tg)sigqueueinfo by the task to itself, which alone may carry any siginfo.
Limits
    Flags and mask of a signal that has its default action are not carried: they mean nothing, but for SIGCHLD's, which
    are.
"""

from __future__ import annotations

import struct

from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.kernel import ptrace, signal
from torpor.kernel.arch import nr
from torpor.kernel.uapi.signal import SS_DISABLE
from torpor.objects.model import DumpProcess, DumpThread, RestoreProcess, RestoreThread
from torpor.tracee.batch import Batch, Data

NSIG = 64
_FIXED = (signal.SIGKILL, signal.SIGSTOP)
_SIGACTION = struct.Struct("<QQQQ")
_STACK = struct.Struct("<QiiQ")
_NUMBERS = tuple(number for number in range(1, NSIG + 1) if number not in _FIXED)
_SIGCHLD_BIT = 1 << (signal.SIGCHLD - 1)
_SIGCHLD_SET = (1 << (signal.SIGCHLD - 1)).to_bytes(8, "little")
_SIG_DFL, _SIG_IGN = 0, 1


def dump_process(process: DumpProcess, batch: Batch) -> None:
    """Actions.  Only those are asked for that can matter: sixty calls less of a usual process."""
    core = process.core.tc
    status = process.status
    wanted = status.caught | status.ignored | _SIGCHLD_BIT
    rooms: list[Data | None] = []
    for number in _NUMBERS:
        if wanted >> (number - 1) & 1:
            room = batch.out(_SIGACTION.size)
            batch.call(nr.rt_sigaction, number, 0, room, 8)
            rooms.append(room)
        else:
            rooms.append(None)

    def collect() -> None:
        default = m.sa_entry(sigaction=0, flags=0, restorer=0, mask=0, compat_sigaction=False)
        actions = core.sigactions
        for room in rooms:
            if room is None:
                actions.append(default)
                continue
            handler, flags, restorer, mask = _SIGACTION.unpack(room.bytes())
            actions.add(sigaction=handler, flags=flags, restorer=restorer, mask=mask, compat_sigaction=False)

    batch.then(collect)


def look_at_thread(thread: DumpThread, sigmask: int) -> None:
    """The mask, as it was when the thread was stopped."""
    thread.core.thread_core.blk_sigset = sigmask


def ask_thread(thread: DumpThread, batch: Batch) -> None:
    """Ask for the alternate stack."""
    room = batch.out(_STACK.size)
    batch.call(nr.sigaltstack, 0, room)

    def collect() -> None:
        sas = thread.core.thread_core.sas
        sas.ss_sp, sas.ss_flags, _, sas.ss_size = _STACK.unpack(room.bytes())

    batch.then(collect)


def dump_pending(process: DumpProcess) -> None:
    """Signals pending for the process and its threads, once the timers have been read.

    A timer that expires in between is carried twice (as a signal, and with the moment that it had left), not lost; the
    one-shot real timer, whose signal tells, not even that.
    """
    core = process.core.tc
    core.signals_s.SetInParent()
    for info in ptrace.peek_siginfo(process.pid, shared=True):
        core.signals_s.signals.add(siginfo=info)
        if info[0] == signal.SIGALRM and not process.status.shared_pending >> (signal.SIGALRM - 1) & 1:
            real = core.timers.real
            if not real.isec and not real.iusec:
                real.vsec = real.vusec = 0
    to_threads = {timer.notify_thread_id for timer in core.timers.posix}
    for thread in process.threads:
        pending = thread.core.thread_core.signals_p
        pending.SetInParent()
        if thread.status.pending or thread.ns_tid in to_threads:
            for info in ptrace.peek_siginfo(thread.tid, shared=False):
                pending.signals.add(siginfo=info)


def next_handler_flags(thread: DumpThread) -> int | None:
    """``sa_flags`` of the handler that the thread will run first as it goes on; None where it will run none."""
    core = thread.core.thread_core
    pending = [number for number, _ in _siginfos(core.signals_p)]
    shared = [number for number, _ in _siginfos(thread.process.core.tc.signals_s)]
    if shared:
        # One thread gets each of the process's: the first that does not block it.
        for each in thread.process.threads:
            mine = [number for number in shared if not each.core.thread_core.blk_sigset >> (number - 1) & 1]
            if each is thread:
                pending += mine
                break
            shared = [number for number in shared if number not in mine]
    for number in sorted(number for number in pending if not core.blk_sigset >> (number - 1) & 1):
        index = number - 1 - sum(1 for fixed in _FIXED if fixed < number)
        action = thread.process.core.tc.sigactions[index]
        if number not in _FIXED and action.sigaction not in (_SIG_DFL, _SIG_IGN):
            return action.flags
    return None


def reset(ignored: int, batch: Batch) -> None:
    """In the root puppet: the default action for signals that it inherited as ignored."""
    default = batch.data(bytes(_SIGACTION.size))
    for number in _NUMBERS:
        if ignored >> (number - 1) & 1:
            batch.call(nr.rt_sigaction, number, default, 0, 8)


def restore_process(process: RestoreProcess, batch: Batch) -> None:
    """Set the actions of the process's signals; one that is all zeroes is the default, and left alone."""
    for number, action in zip(_NUMBERS, process.core.tc.sigactions, strict=False):
        if not (action.sigaction or action.flags or action.mask):
            continue
        packed = batch.data(_SIGACTION.pack(action.sigaction, action.flags, action.restorer, action.mask))
        batch.call(nr.rt_sigaction, number, packed, 0, 8)


def restore_thread(core: m.core_entry, batch: Batch) -> None:
    """Alternate stack.  Bits that only report a state (SS_ONSTACK) cannot be set."""
    if not core.thread_core.HasField("sas"):
        return
    sas = core.thread_core.sas
    if not sas.ss_flags & SS_DISABLE:
        batch.call(nr.sigaltstack, batch.data(_STACK.pack(sas.ss_sp, sas.ss_flags & ~1, 0, sas.ss_size)), 0)


def flush_sigchld(process: RestoreProcess, batch: Batch) -> None:
    """Take away the SIGCHLD that came while the tree was built; those of the image are not queued yet."""
    if process.got_sigchld:
        batch.call(nr.rt_sigtimedwait, batch.data(_SIGCHLD_SET), 0, batch.data(bytes(16)), 8, may_fail=True)


def restore_pending(thread: RestoreThread, batch: Batch) -> None:
    """Queue the pending signals again; all of them are blocked now.  The process's go with its main thread."""
    ns_pid = thread.process.ns_pid
    shared = _siginfos(thread.process.core.tc.signals_s)
    own = _siginfos(thread.core.thread_core.signals_p)
    # The signal that ends our loop is let through, and would take a pending one of its kind along.
    thread.runner.spare_signals({number for number, _ in own + shared})
    for number, info in own:
        batch.call(nr.rt_tgsigqueueinfo, ns_pid, thread.ns_tid, number, batch.data(info))
    if thread.is_leader:
        for number, info in shared:
            batch.call(nr.rt_sigqueueinfo, ns_pid, number, batch.data(info))


def _siginfos(queue: m.signal_queue_entry) -> list[tuple[int, bytes]]:
    found = []
    for entry in queue.signals:
        info = entry.siginfo
        number = int.from_bytes(info[:4], "little") if len(info) == ptrace.SIGINFO_SIZE else 0
        if not 1 <= number <= NSIG:
            raise RestoreError("the image has a pending signal that is none")
        found.append((number, info))
    return found


def mask_of(core: m.core_entry) -> int:
    """The mask to be set as the thread goes on."""
    if core.thread_core.HasField("blk_sigset"):
        return core.thread_core.blk_sigset
    return core.tc.blk_sigset if core.HasField("tc") else 0
