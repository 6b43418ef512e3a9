"""The first puppet: a process that holds nothing but our loop.

It starts as a tiny ELF program, made here, that waits in read(2) on a pipe of ours and exits when that pipe closes; so
it cannot outlive us even in the instant before it is traced.  Then it maps the loop at an address that the images leave
free, moves the vdso beside it and unmaps everything else, its own ELF included: /proc/PID/exe can be set only when no
mapping of the old file is left.  All other puppets are its clones.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Sequence

from torpor.base.errors import TorporError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.base.records import dataclass
from torpor.kernel import lsm, signal, vm
from torpor.kernel.arch import loop, nr
from torpor.kernel.arch import stub as program
from torpor.kernel.arch.regs import UserRegs
from torpor.kernel.namespaces import CLONE_NEWNS, CLONE_NEWUSER, isolated, setns, unshare
from torpor.kernel.procfs.maps import PROT_EXEC, PROT_READ, PROT_WRITE, Vma, read_maps
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.mman import MAP_FIXED_NOREPLACE, MAP_PRIVATE
from torpor.kernel.uapi.prctl import PR_SET_TIMERSLACK
from torpor.kernel.uapi.sched import CLONE_FS, CLONE_PARENT, CLONE_VFORK
from torpor.tracee.batch import Batch
from torpor.tracee.borrow import write_forced
from torpor.tracee.puppet import OPTIONS
from torpor.tracee.remote import Runner, Scratch, kill_and_reap, refuse_fault
from torpor.tracee.thread import Thread

_BASE = 0x10000
_CODE_AT = 120
_SYSCALL_AT = _BASE + _CODE_AT + program.SYSCALL_OFFSET

_MREMAP_MAYMOVE_FIXED = 3
_MAP_PRIVATE_ANONYMOUS = 0x22
_DATA_SIZE = 256 * 1024
_VDSO_ROOM = 256 * 1024
AREA_SIZE = vm.PAGE_SIZE + _DATA_SIZE + _VDSO_ROOM
#: How far below its place the vdso is moved where that is wanted for the loop.
_ASIDE = 1 << 30
_NO_FD = (1 << 64) - 1
_SIGACTION_SIZE = 32
_TIMERSLACK_NS = 50000


@dataclass(frozen=True, slots=True)
class ParkedVdso:
    """The kernel's vdso and its data mappings as they lie beside the loop, in address order."""

    mappings: tuple[Vma, ...]

    @property
    def vdso(self) -> Vma | None:
        """The code mapping; None on a kernel booted without it."""
        return next((vma for vma in self.mappings if vma.is_vdso), None)

    @property
    def length(self) -> int:
        """Bytes of all of them, which are neighbours."""
        return sum(vma.length for vma in self.mappings)

    @property
    def room(self) -> tuple[int, int]:
        """The area (start, end) that they share with the loop."""
        end = self.mappings[0].start + _VDSO_ROOM if self.mappings else 0
        return max(0, end - AREA_SIZE), end


@dataclass(frozen=True, slots=True)
class Stub:
    """The stopped stub, ready to run batches."""

    thread: Thread
    runner: Runner
    area: int
    vdso: ParkedVdso
    life: OwnedFd

    def end(self) -> None:
        """It is gone.  While it is traced only."""
        kill_and_reap([self.thread])
        self.life.close()


@dataclass(frozen=True, slots=True)
class Join:
    """A namespace to enter: a descriptor of ours, and its CLONE_NEW* flag.  That of pids concerns children only."""

    fd: int
    flag: int


@dataclass(frozen=True, slots=True)
class Birth:
    """How to clone the stub from ourselves: CLONE_NEW* flags, its pids (innermost namespace first; none: any), the
    namespaces that it joins, that of pids included, and whether it is to be our sibling, a child of our own parent.

    ``prepare`` is done in the thread that clones it, and what it changes of that thread the stub inherits.  With a user
    namespace, ``settle`` is told the pid and maps the ids; then the stub becomes user and group ``owner`` there.
    """

    flags: int
    set_tid: tuple[int, ...]
    joins: Sequence[Join] = ()
    sibling: bool = False
    prepare: Callable[[], None] | None = None
    settle: Callable[[Pid], None] | None = None
    owner: tuple[int, int] = (0, 0)


def find_area(taken: Sequence[tuple[int, int]], size: int = AREA_SIZE) -> int:
    """An address with *size* free bytes (whole pages) that no (start, end) of *taken* touches."""
    top = program.TASK_SIZE - size
    candidate = top & -0x200000
    for start, end in sorted(taken, reverse=True):
        if end <= candidate:
            break
        if start < candidate + size:
            candidate = (start - size) & -vm.PAGE_SIZE
    if candidate < _BASE + 0x10000:
        raise TorporError("the address spaces of the images leave no room for the restorer")
    return candidate


def spawn(area: int, *, keep_fds: dict[int, int], joins: Sequence[Join] = (), birth: Birth | None = None) -> Stub:
    """Start the stub with the loop at *area*.  *keep_fds* maps its descriptor numbers (above 0) to ours.

    Its descriptor 0 is the pipe that tells it of our death, ``Stub.life`` our end.  It enters the namespaces *joins*.
    """
    places = dict(zip(range(max(keep_fds, default=2) + 1, 1 << 20), joins, strict=False))
    keep_fds = keep_fds | {number: join.fd for number, join in places.items()}
    code = _code_in_file()
    code_at = max(keep_fds, default=2) + 1
    if code is not None:
        keep_fds[code_at] = code.fileno()
    reader, writer = os.pipe2(os.O_CLOEXEC)
    life = OwnedFd(writer)
    # Above all numbers that the stub gets: none is overwritten before it is used, and none is its own copy, which
    # would still be closed when the program is executed.
    lowest = max(keep_fds, default=2) + 1
    raised = {number: OwnedFd(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)) for number, fd in keep_fds.items()}
    try:
        pid = Pid(_exec_stub(reader, {number: fd.fileno() for number, fd in raised.items()}, birth))
        thread = Thread(pid, pid)
        thread.seize(OPTIONS)
        thread.interrupt()
        thread.wait_interrupted()
    except BaseException:
        life.close()
        raise
    finally:
        os.close(reader)
        for fd in raised.values():
            fd.close()
        if code is not None:
            code.close()
    try:
        made = _empty(thread, area, life, code_at if code is not None else None)
        if places:
            _join(made.runner, places)
        return made
    except BaseException:
        kill_and_reap([thread])
        raise


def _join(runner: Runner, places: dict[int, Join]) -> None:
    """Have the stub enter namespaces, whose descriptors it holds at the numbers of *places*."""
    batch = Batch()
    for number, join in places.items():
        batch.call(nr.setns, number, join.flag)
        batch.call(nr.close, number)
    runner.run(batch)


def _exec_stub(reader: int, keep_fds: dict[int, int], birth: Birth | None) -> int:
    image = os.memfd_create("torpor-stub", os.MFD_CLOEXEC)
    if image in keep_fds:
        # What the stub keeps takes this number before the program is executed by it.
        image, taken = fcntl.fcntl(image, fcntl.F_DUPFD_CLOEXEC, max(keep_fds) + 1), image
        os.close(taken)
    path = f"/proc/self/fd/{image}"
    try:
        os.write(image, elf_of(program.ELF_MACHINE, program.CODE))
        if birth is not None:
            return isolated(lambda: _clone_ourselves(path, reader, keep_fds, birth))
        actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_DUP2, reader, 0)]
        actions += [(os.POSIX_SPAWN_CLOSE, number) for number in (1, 2) if number not in keep_fds]
        actions += [(os.POSIX_SPAWN_DUP2, ours, number) for number, ours in keep_fds.items()]
        every = set(range(1, signal.NSIG)) - {signal.SIGKILL, signal.SIGSTOP, 32, 33}
        return os.posix_spawn(path, ["torpor"], {}, file_actions=actions, setsigmask=[], setsigdef=every)
    finally:
        os.close(image)


def _clone_ourselves(path: str, reader: int, keep_fds: dict[int, int], birth: Birth) -> int:
    """A copy of this process that becomes the stub at once.

    Nobody but we ourselves can bear a child to our parent, and posix_spawn cannot.  A process executed in its user
    namespace is one that its root may look into; a mere clone would be ours in that respect.  Run by a thread of its
    own, for it goes into other namespaces.
    """
    for join in birth.joins:
        if join.flag == CLONE_NEWNS:
            unshare(CLONE_FS)
        if join.flag != CLONE_NEWUSER:  # no thread beside others may enter one
            setns(join.fd, join.flag)
    if birth.prepare is not None:
        birth.prepare()
    if birth.settle is not None:
        return _clone_and_settle(path, reader, keep_fds, birth, birth.settle)
    # With CLONE_VFORK this returns once the copy has executed the stub, not before.
    pid = _clone(birth, CLONE_VFORK)
    if pid == 0:
        _become_stub(path, reader, keep_fds, birth)
    return pid


def _clone_and_settle(
    path: str, reader: int, keep_fds: dict[int, int], birth: Birth, settle: Callable[[Pid], None]
) -> int:
    """It must be somebody in its user namespace when it executes the stub, or else it has no privileges afterwards."""
    theirs, ours = os.pipe2(os.O_CLOEXEC)
    started, low = os.pipe2(os.O_CLOEXEC)
    # Above all numbers that the stub gets: it must close when the program is executed, and not before.
    told = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, max(keep_fds, default=2) + 1)
    os.close(low)
    pid = _clone(birth, 0)
    if pid == 0:
        try:
            os.close(ours)
            if os.read(theirs, 1):
                user, group = birth.owner
                os.setresgid(group, group, group)
                os.setresuid(user, user, user)
                _become_stub(path, reader, keep_fds, birth)
        finally:
            os._exit(127)
    os.close(theirs)
    os.close(told)
    with OwnedFd(ours), OwnedFd(started):
        settle(Pid(pid))
        os.write(ours, b"s")
        os.read(started, 1)  # ends when the copy has executed the stub
    return pid


def _clone(birth: Birth, flags: int) -> int:
    tids = bytearray(struct.pack(f"{len(birth.set_tid)}i", *birth.set_tid))
    flags |= birth.flags | (CLONE_PARENT if birth.sibling else 0)
    exit_signal = 0 if birth.sibling else signal.SIGCHLD
    at = address_of(tids) if tids else 0
    args = bytearray(struct.pack("11Q", flags, 0, 0, 0, exit_signal, 0, 0, 0, at, len(birth.set_tid), 0))
    return syscall("clone3", nr.clone3, address_of(args), len(args))


def _become_stub(path: str, reader: int, keep_fds: dict[int, int], birth: Birth) -> None:
    try:
        for join in birth.joins:
            if join.flag == CLONE_NEWUSER:
                setns(join.fd, join.flag)
        default = bytearray(_SIGACTION_SIZE)
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
            # Python's own call is for its main thread only.
            syscall("rt_sigaction", nr.rt_sigaction, ignored, address_of(default), 0, 8)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (1, 2):
            if number not in keep_fds:
                os.close(number)
        for number, kept in {0: reader, **keep_fds}.items():
            os.dup2(kept, number)
        os.execve(path, ["torpor"], {})
    finally:
        os._exit(127)


def elf_of(machine: int, code: bytes) -> bytes:
    """A static ELF program of one segment: header, program header, code."""
    size = _CODE_AT + len(code)
    ident = b"\x7fELF\x02\x01\x01"
    entry = _BASE + _CODE_AT
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, machine, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, PROT_READ | PROT_EXEC, 0, _BASE, _BASE, size, size, vm.PAGE_SIZE)
    return header + segment + code


def _code_in_file() -> OwnedFd | None:
    """The loop in a file, where SELinux asks for execmem if anonymous memory is to be code; None elsewhere."""
    if lsm.active() != lsm.SELINUX:
        return None
    fd = OwnedFd(os.memfd_create("torpor-loop", os.MFD_CLOEXEC))
    os.write(fd.fileno(), loop.CODE.ljust(vm.PAGE_SIZE, b"\0"))
    return fd


def _map(thread: Thread, regs: UserRegs, area: int, code_at: int | None) -> None:
    """The loop and memory for it, at *area*; *code_at*: the descriptor of a file that has the loop."""
    anonymous = _MAP_PRIVATE_ANONYMOUS | MAP_FIXED_NOREPLACE
    if code_at is None:
        prot = PROT_READ | PROT_WRITE | PROT_EXEC
        wanted = [(area, vm.PAGE_SIZE + _DATA_SIZE, prot, anonymous, _NO_FD, 0)]
    else:
        code = (area, vm.PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED_NOREPLACE, code_at, 0)
        wanted = [code, (area + vm.PAGE_SIZE, _DATA_SIZE, PROT_READ | PROT_WRITE, anonymous, _NO_FD, 0)]
    for args in wanted:
        if call_at(thread, _SYSCALL_AT, regs, nr.mmap, *args) != args[0]:
            raise TorporError(f"cannot map the restorer's loop at {area:#x}")
    if code_at is None:
        write_forced(thread.tid, area, loop.CODE)
    else:
        call_at(thread, _SYSCALL_AT, regs, nr.close, code_at)


def _empty(thread: Thread, area: int, life: OwnedFd, code_at: int | None) -> Stub:
    regs = thread.get_regs()
    size = vm.PAGE_SIZE + _DATA_SIZE
    _clear_way(thread, regs, area, area + AREA_SIZE)
    _map(thread, regs, area, code_at)
    runner = Runner(thread, Scratch(area, area + vm.PAGE_SIZE, _DATA_SIZE))
    runner.start_from(regs.emptied())
    batch = Batch()
    # What a clone has as its default is what its parent has now, whatever our callers had chosen.
    batch.call(nr.prctl, PR_SET_TIMERSLACK, _TIMERSLACK_NS)
    parked = _park_vdso(batch, read_maps(thread.tid), area + size)
    batch.call(nr.munmap, 0, area)
    end = max([area + size, *(vma.end for vma in parked)])
    batch.call(nr.munmap, end, program.TASK_SIZE - end)
    runner.run(batch)
    return Stub(thread, runner, area, ParkedVdso(tuple(parked)), life)


def _clear_way(thread: Thread, regs: UserRegs, start: int, end: int) -> None:
    """Take away what the kernel has put there, as it now and then does: the stack, which the stub has no use for, and
    its vdso with all that belongs to that, which goes elsewhere as it is.
    """
    maps = read_maps(thread.tid)
    in_the_way = [vma for vma in maps if vma.start < end and start < vma.end]
    if any(vma.is_vdso or vma.is_vvar for vma in in_the_way):
        for vma in maps:
            if vma.is_vdso or vma.is_vvar:
                place = vma.start - _ASIDE
                call_at(
                    thread, _SYSCALL_AT, regs, nr.mremap, vma.start, *[vma.length] * 2, _MREMAP_MAYMOVE_FIXED, place
                )
    for vma in in_the_way:
        if not (vma.is_vdso or vma.is_vvar):
            call_at(thread, _SYSCALL_AT, regs, nr.munmap, vma.start, vma.length)


def _park_vdso(batch: Batch, maps: list[Vma], start: int) -> list[Vma]:
    parked = []
    for vma in maps:
        if vma.is_vdso or vma.is_vvar:
            batch.call(nr.mremap, vma.start, vma.length, vma.length, _MREMAP_MAYMOVE_FIXED, start)
            parked.append(Vma(start, start + vma.length, vma.prot, False, 0, 0, 0, vma.name))
            start += vma.length
    return parked


def call_at(thread: Thread, syscall_at: int, regs: UserRegs, number: int, *args: int) -> int:
    """Make one call by a system call instruction that is mapped in a puppet; its raw result (unsigned).

    TorporError where the puppet cannot execute it.
    """
    regs = regs.copy()
    regs.set_call(syscall_at, number, args)
    thread.set_regs(regs)
    for _ in range(2):
        thread.cont_to_syscall()
        while not (stop := thread.wait()).is_syscall:
            if stop.is_signal:
                refuse_fault(thread, stop)
            thread.cont_to_syscall()
    return thread.get_regs().result
