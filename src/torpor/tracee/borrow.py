"""Borrowing a live task: our loop is put into its memory, runs in its threads, and goes without a trace.

Crash safety (D4).  Before a thread runs anything for us, a signal frame with its complete state lies in its memory,
and whatever it is about to run ends in rt_sigreturn on that frame.  If we die, it finishes the batch and walks back
into its own code.  The first step, making room for the loop, has no code of ours to run yet: it uses the
system call and sigreturn instructions (``call`` of ``kernel/arch``) that every C library and the Go runtime contain,
with the frame at the far end of the main stack, where no program has anything.  (A frame just below a thread's own
stack pointer would do for C, but goroutine stacks are tiny and lie beside each other.)

What does stay if we die at the wrong instant is the mapping itself: idle memory.  It lies at an address that nothing
else uses, so the next one who borrows the process finds it and takes it away (``split_leftovers``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import EACCES, EEXIST, ENOMEM
from itertools import chain

from torpor.base import log
from torpor.base.errors import KernelError, RefusedError, TorporError
from torpor.base.ids import Pid
from torpor.kernel import interrupts, lsm, signal, vm
from torpor.kernel.arch import call as gadgets
from torpor.kernel.arch import loop, nr, restart, sigframe, xstate
from torpor.kernel.arch.regs import UserRegs
from torpor.kernel.procfs.maps import PROT_EXEC, PROT_READ, PROT_WRITE, Vma
from torpor.kernel.procfs.status import Status, read_status
from torpor.kernel.uapi.mman import MAP_FIXED_NOREPLACE
from torpor.tracee import dispatch
from torpor.tracee.pipeline import DEPTH
from torpor.tracee.remote import FAULTS, Runner, Scratch, mask_bit, refuse_fault
from torpor.tracee.rseq import ip_outside_critical_section
from torpor.tracee.thread import Thread

_MAP_PRIVATE_ANONYMOUS = 0x22
#: Where our memory is put in a target, unless something is there.
_WINDOW = range(0x746F72700000, 0x746F72800000)
_MASK = (1 << 64) - 1
_CODE_SIZE = vm.PAGE_SIZE
_DATA_SIZE = 128 * 1024
_SEARCH_LIMIT = 64 * 1024 * 1024
_SEARCH_STEP = 128 * 1024
_SEARCH_OVERLAP = 16
assert gadgets.LONGEST <= _SEARCH_OVERLAP
_STACK_MARGIN = 16 * 1024
_STOP_SIGNALS: tuple[int, ...] = (signal.SIGURG, signal.SIGWINCH, signal.SIGCHLD)
_NEVER = (signal.SIGKILL, signal.SIGSTOP, *FAULTS)
_SIGRTMIN = 32

#: An address, and what was there before it became ours for the time.
Covered = tuple[int, bytes]

_gadget_cache: dict[tuple[int, int, int], tuple[int, int]] = {}


class BorrowedRunner(Runner):
    """Runs batches in a thread that gets back every register, its mask and its interrupted call afterwards."""

    def __init__(
        self, thread: Thread, scratch: Scratch, frame_at: int, *, stop_signal: int, by_calls: bool, open_signals: int
    ) -> None:
        super().__init__(thread, scratch, stop_signal=stop_signal)
        self._mask &= ~open_signals
        self.by_calls = by_calls
        self._dispatch = dispatch.suspend(thread)
        self.regs = _regs_to_give_back(thread)
        self.xstate = thread.get_xstate()
        self.sigmask = thread.get_sigmask()
        self._mask = dispatch.mask_for_calls(thread, self._mask)
        self._frame_at = frame_at
        self.start_from(self.regs)
        frame = sigframe.build(frame_at, restart.outside(self.regs), self.xstate, self.sigmask)
        vm.write(thread.tid, frame_at, frame)

    def _return_frame(self) -> int:
        return self._frame_at

    def give_back(self) -> None:
        """The thread is as it was; its interrupted call goes on by the kernel's own restart, deadline included."""
        self.thread.set_sigmask(self.sigmask)
        if xstate.is_lost_by_calls(self.xstate):
            self.thread.set_xstate(self.xstate)
        self.thread.set_regs(self.regs)
        dispatch.resume(self.thread, self._dispatch)


class Injection:
    """Our loop in the address space of one stopped process.  Made by ``inject``.

    There is a frame for the leader and one for each of the threads that may be at work beside it.
    """

    def __init__(
        self,
        leader: Thread,
        scratch: Scratch,
        frames: Sequence[int],
        covered: Covered,
        *,
        stop_signal: int,
        open_signals: int,
    ) -> None:
        self.leader = leader
        self.scratch = scratch
        #: What is to be put back into a copy of the process's memory that is made while we are in it.
        self.covered = covered
        self._frames = frames
        self._stop_signal, self._open_signals = stop_signal, open_signals
        self._by_calls = not lsm.may_signal_itself(leader.tgid, stop_signal)

    @contextmanager
    def borrow(self, thread: Thread) -> Iterator[BorrowedRunner]:
        """Run batches in *thread*, one thread at a time beside the leader."""
        runner = self.borrower(thread, 0)
        try:
            yield runner
        finally:
            runner.give_back()

    def borrower(self, thread: Thread, part: int) -> BorrowedRunner:
        """Like ``borrow`` for one of several threads at once, number *part* of a pipeline; the caller gives it back."""
        frame_at = self._frames[0 if thread is self.leader else 1 + part]
        return BorrowedRunner(
            thread,
            self.scratch,
            frame_at,
            stop_signal=self._stop_signal,
            by_calls=self._by_calls,
            open_signals=self._open_signals,
        )


@contextmanager
def inject(
    leader: Thread, maps: list[Vma], leftovers: Sequence[Vma] = (), *, pending: int = 0, status: Status | None = None
) -> Iterator[Injection]:
    """Put the loop into the process of *leader*, all of whose threads are stopped, and take it out at the end.

    *maps* are the process's mappings.  The scratch mapping is not among them: read them before.  *leftovers* (see
    ``split_leftovers``) are unmapped.  *pending*: the signals pending for any of its threads.  *status*: what
    /proc says of it, if that has been read since it was stopped.
    """
    status = status or read_status(leader.tgid)
    pending |= status.shared_pending | status.pending
    stop_signal = _choose_stop_signal(leader, status, pending)
    faults = _handled_faults(status, pending)
    extended = leader.get_xstate()
    frame_size = (sigframe.size_for(extended) + 63) & -64
    with _bootstrapped(leader, extended, maps, frame_size, faults) as boot:
        n_frames = 1 + DEPTH
        size = _CODE_SIZE + (n_frames * frame_size + _DATA_SIZE + vm.PAGE_SIZE - 1) // vm.PAGE_SIZE * vm.PAGE_SIZE
        for vma in leftovers:
            boot.unmap(vma.start, vma.length)
        if lsm.active() == lsm.SELINUX:
            boot.find_room(maps)
        start = boot.map_scratch(size)
        code = boot.place_code(start)
        frames = [start + _CODE_SIZE + number * frame_size for number in range(n_frames)]
        data = start + _CODE_SIZE + n_frames * frame_size
        scratch = Scratch(code=code, data=data, size=start + size - data)
        try:
            yield Injection(leader, scratch, frames, boot.covered, stop_signal=stop_signal, open_signals=faults)
        finally:
            boot.take_code_out()
            boot.unmap(start, size)


def call_once(leader: Thread, maps: list[Vma], number: int, *args: int) -> int:
    """Have *leader*, which is stopped, make one call, and nothing but numbers as arguments; its result.

    KernelError if it fails.  Nothing is mapped for it; other threads of the process may run meanwhile.
    """
    extended = leader.get_xstate()
    with _bootstrapped(leader, extended, maps, (sigframe.size_for(extended) + 63) & -64) as boot:
        return boot.call(number, *args)


@contextmanager
def _bootstrapped(
    leader: Thread, extended: bytes, maps: list[Vma], frame_size: int, open_signals: int = 0
) -> Iterator[_Bootstrap]:
    regs = _regs_to_give_back(leader)
    if regs.is_compat:
        raise RefusedError(f"pid {leader.tgid} runs 32-bit code", hint="only 64-bit processes can be checkpointed")
    # Broken off in the midst of a call, nobody would know what the thread is about to do.
    area = _bootstrap_area(leader, regs, extended, maps, frame_size)
    with interrupts.put_off(), _dispatch_off(leader), area as boot:
        boot.mask &= ~open_signals
        yield boot


@contextmanager
def _dispatch_off(thread: Thread) -> Iterator[None]:
    suspended = dispatch.suspend(thread)
    try:
        yield
    finally:
        dispatch.resume(thread, suspended)


def split_leftovers(maps: list[Vma], threads: Sequence[Thread]) -> tuple[list[Vma], list[Vma]]:
    """(mappings of the process's own, mappings that a borrower who died left in it).

    *threads* are all of the process's, stopped.  One that is still on its way out of the mapping keeps it its own.
    """
    left = [vma for vma in maps if vma.start in _WINDOW and not vma.is_file and not vma.shared]
    if not left or any(thread.get_regs().ip in _WINDOW for thread in threads):
        return maps, []
    return [vma for vma in maps if vma not in left], left


def _regs_to_give_back(thread: Thread) -> UserRegs:
    """The thread's registers, but for what only a stop explains.

    Our calls make the kernel forget a restartable sequence, which nobody would abort afterwards: the thread is at the
    abort handler then.  A call that gave up because of our stop goes on.
    """
    regs = thread.get_regs()
    if regs.in_syscall:  # no restartable sequence makes system calls
        return restart.transparent(regs)
    return ip_outside_critical_section(thread.tid, regs)


class _Bootstrap:
    """Makes single calls through gadgets in the target's own text, with a frame on its main stack behind them."""

    def __init__(
        self,
        thread: Thread,
        regs: UserRegs,
        extended: bytes,
        sigmask: int,
        code: tuple[int, int],
        covered: Covered,
    ) -> None:
        #: The bytes of the stack that our frame is over.
        self.covered = covered
        self._thread = thread
        self._regs = regs
        self._extended = extended
        self._sigmask = sigmask
        #: What is blocked while it makes calls for us.
        self.mask = dispatch.mask_for_calls(thread, _MASK)
        self._stack = covered[0]
        self._syscall_ret, self._sigreturn = code
        #: Where the loop lies, if not in memory of our own, and what was there.
        self._room: tuple[int, bytes] | None = None
        #: Whether the thread is on its way through the frame, and needs it.
        self.is_away = False

    def call(self, number: int, *args: int) -> int:
        """Make one call; KernelError if it fails.  The thread has its own registers again afterwards."""
        regs = self._regs.copy()
        regs.set_call(self._syscall_ret, number, args)
        gadgets.set_return(regs, self._stack, self._sigreturn)
        thread = self._thread
        self.is_away = True
        thread.set_regs(regs)
        thread.set_sigmask(self.mask)
        try:
            self._to_syscall_stop()
            self._to_syscall_stop()
            result = thread.get_regs().result
        finally:
            thread.set_sigmask(self._sigmask)
            if xstate.is_lost_by_calls(self._extended):
                thread.set_xstate(self._extended)
            thread.set_regs(self._regs)
            self.is_away = False
        if result >= _MASK - 4094:
            raise KernelError(f"a call inside pid {thread.tgid}", _MASK + 1 - result)
        return result

    def _to_syscall_stop(self) -> None:
        self._thread.cont_to_syscall()
        while not (stop := self._thread.wait()).is_syscall:
            if stop.is_signal:
                dispatch.refuse_if_dispatched(self._thread, stop)
                refuse_fault(self._thread, stop)
                self._thread.deferred.append(stop.signal)
            self._thread.cont_to_syscall()

    def find_room(self, maps: list[Vma]) -> None:
        """For SELinux, which asks for execmem where anonymous memory is to be code: of ours none is, if possible."""
        self._room = find_unused_code(self._thread.tid, maps)

    def map_scratch(self, size: int) -> int:
        """Map *size* bytes, the first page of which may be code; the address."""
        prot = PROT_READ | PROT_WRITE | (0 if self._room else PROT_EXEC)
        no_fd = _MASK
        wanted = (_WINDOW.start, size)
        flags = _MAP_PRIVATE_ANONYMOUS | MAP_FIXED_NOREPLACE
        try:
            try:
                start = self.call(nr.mmap, *wanted, prot, flags, no_fd, 0)
            except KernelError as error:
                if error.errno not in (EEXIST, ENOMEM):  # ENOMEM: addresses here end before it
                    raise
                wanted, flags = (0, size), _MAP_PRIVATE_ANONYMOUS
                start = self.call(nr.mmap, *wanted, prot, flags, no_fd, 0)
        except KernelError as error:
            log.debug(f"pid {self._thread.tgid} may not map writable code ({error}); code page read-only")
            start = self._map_code(wanted, flags)
            rest = (start + _CODE_SIZE, size - _CODE_SIZE)
            prot = PROT_READ | PROT_WRITE
            self.call(nr.mmap, rest[0], rest[1], prot, _MAP_PRIVATE_ANONYMOUS | 0x10, no_fd, 0)
        return start

    def _map_code(self, wanted: tuple[int, int], flags: int) -> int:
        try:
            return self.call(nr.mmap, *wanted, PROT_READ | PROT_EXEC, flags, _MASK, 0)
        except KernelError as error:
            if error.errno != EACCES:
                raise
            tid = self._thread.tgid
            raise no_room(f"pid {tid}", lsm.read_label(tid, tid, "current")) from error

    def place_code(self, start: int) -> int:
        """Put the loop at *start*, or where there is room in the process's own code; where it is."""
        at = self._room[0] if self._room else start
        write_forced(self._thread.tid, at, loop.CODE)
        return at

    def take_code_out(self) -> None:
        """What ``place_code`` has covered is there again."""
        if self._room is not None:
            write_forced(self._thread.tid, *self._room)

    def unmap(self, start: int, size: int) -> None:
        """Unmap the scratch memory."""
        self.call(nr.munmap, start, size)


@contextmanager
def _bootstrap_area(
    leader: Thread, regs: UserRegs, extended: bytes, maps: list[Vma], frame_size: int
) -> Iterator[_Bootstrap]:
    syscall_ret, sigreturn = find_gadgets(leader.tid, maps)
    stack = _scratch_stack(regs, maps, frame_size + 64)
    sigmask = leader.get_sigmask()
    frame = sigframe.build(stack + gadgets.FRAME_OFFSET, restart.outside(regs), extended, sigmask)
    content = gadgets.below_frame(sigreturn) + frame
    memory = os.open(f"/proc/{leader.tid}/mem", os.O_RDWR | os.O_CLOEXEC)
    try:
        before = _pread_or_zeroes(memory, len(content), stack)
        boot = _Bootstrap(leader, regs, extended, sigmask, (syscall_ret, sigreturn), (stack, before))
        os.pwrite(memory, content, stack)
        try:
            yield boot
        finally:
            if not boot.is_away:
                os.pwrite(memory, before, stack)
    finally:
        os.close(memory)


def _pread_or_zeroes(memory: int, length: int, address: int) -> bytes:
    try:
        return os.pread(memory, length, address)
    except OSError:
        return bytes(length)  # below the mapping as it is now: the write will grow it


def _scratch_stack(regs: UserRegs, maps: list[Vma], size: int) -> int:
    for vma in maps:
        if vma.name == "[stack]":
            if vma.start <= regs.sp < vma.start + size + _STACK_MARGIN:
                break
            return vma.start + 64
    return (regs.sp - gadgets.RED_ZONE - size) & -64


def write_forced(pid: Pid, address: int, data: bytes) -> None:
    """Write through ``/proc/PID/mem``, read-only mappings included."""
    memory = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.pwrite(memory, data, address)
    finally:
        os.close(memory)


def find_unused_code(pid: Pid, maps: list[Vma]) -> tuple[int, bytes] | None:
    """Room for the loop at the end of a mapping of code, where a linker has filled up the page, and what lies there.

    A copy of that page is the process's own from then on, as under a debugger.  Nobody runs what lies there: if we die,
    the loop stays, and the next one finds it again.
    """
    size = (len(loop.CODE) + 15) & -16
    code = [vma for vma in maps if vma.prot & PROT_EXEC and vma.prot & PROT_READ and not vma.shared]
    for vma in sorted(code, key=lambda vma: (not vma.is_file, vma.length)):
        if not (vma.is_file or vma.is_vdso):
            continue
        try:
            before = vm.read(pid, vma.end - size, size)
        except OSError:
            continue  # longer than the file behind it
        if not any(before) or before.startswith(loop.CODE):
            return vma.end - size, before
    return None


def no_room(who: str, label: str) -> RefusedError:
    """What is said of a task that SELinux lets have no memory for our code."""
    return RefusedError(
        f"{who} ({label}) may not map code, and none of its own has room",
        hint="allow its domain execmem for the checkpoint, by a rule or a boolean (allow_execmem)",
    )


def find_gadgets(pid: Pid, maps: list[Vma]) -> tuple[int, int]:
    """Addresses of a system call that returns, and of sigreturn code, in the code that *pid* has mapped.

    Where a program has no such code (nothing of libc, musl or Go in it), the vdso's call is used alone: it
    works, but the instant of the first call is then not safe against our death.
    """
    code = [vma for vma in maps if vma.prot & PROT_EXEC and vma.prot & PROT_READ and not vma.is_vsyscall]
    code.sort(key=lambda vma: (not _is_libc(vma.name), not vma.inode, vma.length))
    syscall_ret = sigreturn = budget = 0
    for vma in code:
        budget += vma.length
        if budget > _SEARCH_LIMIT:
            break
        found = _gadgets_in(pid, vma)
        syscall_ret = syscall_ret or found[0]
        sigreturn = sigreturn or found[1]
        if syscall_ret and sigreturn:
            return syscall_ret, sigreturn
    for vma in code:
        at = gadgets.find(vm.read(pid, vma.start, vma.length), gadgets.SYSCALL)
        if at >= 0:
            log.warn(f"pid {pid} has no sigreturn code: a crash of ours during the first call would harm it")
            return vma.start + at, vma.start + at
    raise TorporError(f"pid {pid} has no system call instruction in its code")


def _is_libc(name: str) -> bool:
    base = name.rpartition("/")[2]
    return base.startswith(("libc.so", "libc-", "ld-musl", "libc.musl"))


def _gadgets_in(pid: Pid, vma: Vma) -> tuple[int, int]:
    key = (vma.device, vma.inode, vma.pgoff)
    if vma.inode and key in _gadget_cache:
        offsets = _gadget_cache[key]
        if _still_there(pid, vma, offsets):
            return (vma.start + offsets[0] if offsets[0] else 0, vma.start + offsets[1] if offsets[1] else 0)
    first = second = 0
    # A libc has both near its start; all of it would take longer to read than a small dump may freeze.
    for start in range(0, vma.length, _SEARCH_STEP):
        try:
            text = vm.read(pid, vma.start + start, min(_SEARCH_STEP + _SEARCH_OVERLAP, vma.length - start))
        except OSError:
            return 0, 0
        if not first and (at := gadgets.find(text, gadgets.SYSCALL_RET)) >= 0:
            first = start + at
        if not second:
            second = next((start + at for code in gadgets.SIGRETURN if (at := gadgets.find(text, code)) >= 0), 0)
        if first and second:
            break
    if vma.inode:
        _gadget_cache[key] = (first, second)
    return (vma.start + first if first else 0, vma.start + second if second else 0)


def _still_there(pid: Pid, vma: Vma, offsets: tuple[int, int]) -> bool:
    """Text can be private to a process (patched, relocated): what another process had there is checked, not trusted."""
    first, second = offsets
    try:
        good_first = not first or vm.read(pid, vma.start + first, len(gadgets.SYSCALL_RET)) == gadgets.SYSCALL_RET
        good_second = not second or vm.read(pid, vma.start + second, gadgets.LONGEST).startswith(gadgets.SIGRETURN)
    except OSError:
        return False
    return good_first and good_second


def _handled_faults(status: Status, pending: int) -> int:
    """The signals of faults, as a mask, that stay open while the process works for us.

    One that is blocked when the kernel delivers it has lost its handler before we hear of it (kernel/signal.c,
    force_sig_info_to_task).  One that is pending comes if it is opened, and stays blocked.
    """
    return sum(map(mask_bit, FAULTS)) & status.caught & ~pending


def _choose_stop_signal(leader: Thread, status: Status, pending: int) -> int:
    """A signal that the process ignores and that is not pending: harmless if nobody traces it any more.

    While it ends our loops, a pending one of its kind would be taken for it and be lost.
    """
    taken = status.caught | pending
    ignored = status.ignored & ~mask_bit(signal.SIGCONT)
    others = (number for number in range(1, _SIGRTMIN) if ignored & mask_bit(number))
    # The Go runtime handles all but SIGCONT, which would end a stop, so it is none for a stopped process.
    last = [] if leader.group_stop else [int(signal.SIGCONT)]
    for number in chain(_STOP_SIGNALS, others, last):
        if not taken & mask_bit(number) and number not in _NEVER:
            return number
    raise RefusedError(
        f"pid {leader.tgid} has handlers for, or has pending, all of SIGURG, SIGWINCH, SIGCHLD and SIGCONT",
        hint="if it is stopped, continue it and try again",
    )
