"""ptrace(2): requests, options, events, and one thin function a request.

Every function must be called from the thread that seized the tracee.  A tracee that is gone gives
:class:`ProcessLookupError` (ESRCH), which also means "not stopped"; the tracee layer tells the two apart.
"""

from __future__ import annotations

import struct

from torpor.base.ids import Pid
from torpor.kernel.arch import nr
from torpor.kernel.arch.regs import UserRegs, read_regs, write_regs
from torpor.kernel.syscall import address_of, syscall

PTRACE_CONT = 7
PTRACE_SYSCALL = 24
PTRACE_DETACH = 17
PTRACE_SETOPTIONS = 0x4200
PTRACE_GETREGSET = 0x4204
PTRACE_SETREGSET = 0x4205
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_LISTEN = 0x4208
PTRACE_GETSIGINFO = 0x4202
PTRACE_PEEKSIGINFO = 0x4209
PTRACE_GETSIGMASK = 0x420A
PTRACE_SETSIGMASK = 0x420B
PTRACE_SECCOMP_GET_FILTER = 0x420C
PTRACE_SECCOMP_GET_METADATA = 0x420D
PTRACE_GET_RSEQ_CONFIGURATION = 0x420F
PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG = 0x4210
PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG = 0x4211

PTRACE_O_TRACESYSGOOD = 0x01
PTRACE_O_TRACEFORK = 0x02
PTRACE_O_TRACEVFORK = 0x04
PTRACE_O_TRACECLONE = 0x08
PTRACE_O_TRACEEXEC = 0x10
PTRACE_O_TRACEEXIT = 0x40
PTRACE_O_EXITKILL = 0x100000
PTRACE_O_SUSPEND_SECCOMP = 0x200000

PTRACE_EVENT_FORK = 1
PTRACE_EVENT_VFORK = 2
PTRACE_EVENT_CLONE = 3
PTRACE_EVENT_EXEC = 4
PTRACE_EVENT_EXIT = 6
PTRACE_EVENT_STOP = 128

PTRACE_PEEKSIGINFO_SHARED = 1

SIGINFO_SIZE = 128
# More than any CPU's extended state; one for all, since fresh memory of that size costs more than the call.
_xstate_buffer = bytearray(64 * 1024)
_MAX_FILTER = 4096 * 8  # BPF_MAXINSNS records of eight bytes


def seize(tid: Pid, options: int) -> None:
    """PTRACE_SEIZE: trace without stopping."""
    syscall("ptrace(SEIZE)", nr.ptrace, PTRACE_SEIZE, tid, 0, options)


def interrupt(tid: Pid) -> None:
    """PTRACE_INTERRUPT: a PTRACE_EVENT_STOP will follow."""
    syscall("ptrace(INTERRUPT)", nr.ptrace, PTRACE_INTERRUPT, tid)


def cont(tid: Pid, signal: int = 0) -> None:
    """PTRACE_CONT: let the stopped tracee go on, and deliver *signal* to it unless that is 0."""
    syscall("ptrace(CONT)", nr.ptrace, PTRACE_CONT, tid, 0, signal)


def cont_to_syscall(tid: Pid, signal: int = 0) -> None:
    """PTRACE_SYSCALL: go on to the next entry or exit of a system call."""
    syscall("ptrace(SYSCALL)", nr.ptrace, PTRACE_SYSCALL, tid, 0, signal)


def listen(tid: Pid) -> None:
    """PTRACE_LISTEN: stay in group-stop, but hear of its end."""
    syscall("ptrace(LISTEN)", nr.ptrace, PTRACE_LISTEN, tid)


def detach(tid: Pid, signal: int = 0) -> None:
    """PTRACE_DETACH: stop tracing, let the tracee go on, and deliver *signal* to it unless that is 0."""
    syscall("ptrace(DETACH)", nr.ptrace, PTRACE_DETACH, tid, 0, signal)


def set_options(tid: Pid, options: int) -> None:
    """PTRACE_SETOPTIONS: these instead of those there were."""
    syscall("ptrace(SETOPTIONS)", nr.ptrace, PTRACE_SETOPTIONS, tid, 0, options)


def get_regs(tid: Pid) -> UserRegs:
    """The general registers of a stopped tracee; OSError EINVAL where the machine cannot give 32-bit code's."""
    return read_regs(tid)


def set_regs(tid: Pid, values: UserRegs) -> None:
    """Set the general registers of a stopped tracee, all at once."""
    write_regs(tid, values)


def get_regset(tid: Pid, note: int) -> bytes:
    """A register set by its ELF note, in whatever length the kernel gives."""
    buffer = _xstate_buffer
    iov = bytearray(struct.pack("QQ", address_of(buffer), len(buffer)))
    syscall("ptrace(GETREGSET)", nr.ptrace, PTRACE_GETREGSET, tid, note, address_of(iov))
    (length,) = struct.unpack_from("Q", iov, 8)
    return bytes(buffer[:length])


def set_regset(tid: Pid, note: int, data: bytes) -> None:
    """A register set by its ELF note."""
    buffer = bytearray(data)
    iov = bytearray(struct.pack("QQ", address_of(buffer), len(buffer)))
    syscall("ptrace(SETREGSET)", nr.ptrace, PTRACE_SETREGSET, tid, note, address_of(iov))


def get_sigmask(tid: Pid) -> int:
    """The blocked signals, bit n-1 for signal n."""
    buffer = bytearray(8)
    syscall("ptrace(GETSIGMASK)", nr.ptrace, PTRACE_GETSIGMASK, tid, 8, address_of(buffer))
    return int.from_bytes(buffer, "little")


def set_sigmask(tid: Pid, mask: int) -> None:
    """The blocked signals; SIGKILL and SIGSTOP are left out by the kernel."""
    buffer = bytearray(mask.to_bytes(8, "little"))
    syscall("ptrace(SETSIGMASK)", nr.ptrace, PTRACE_SETSIGMASK, tid, 8, address_of(buffer))


def peek_siginfo(tid: Pid, *, shared: bool) -> list[bytes]:
    """All pending signals of the thread, or of its process where *shared*, as 128-byte siginfos."""
    found: list[bytes] = []
    per_call = 32
    buffer = bytearray(SIGINFO_SIZE * per_call)
    while True:
        flags = PTRACE_PEEKSIGINFO_SHARED if shared else 0
        args = bytearray(struct.pack("QIi", len(found), flags, per_call))
        count = syscall("ptrace(PEEKSIGINFO)", nr.ptrace, PTRACE_PEEKSIGINFO, tid, address_of(args), address_of(buffer))
        found += [bytes(buffer[i * SIGINFO_SIZE : (i + 1) * SIGINFO_SIZE]) for i in range(count)]
        if count < per_call:
            return found


def signal_code(tid: Pid) -> int:
    """si_code of the signal at whose delivery the thread is stopped."""
    buffer = bytearray(SIGINFO_SIZE)
    syscall("ptrace(GETSIGINFO)", nr.ptrace, PTRACE_GETSIGINFO, tid, 0, address_of(buffer))
    code: int = struct.unpack_from("i", buffer, 8)[0]
    return code


def get_rseq(tid: Pid) -> tuple[int, int, int, int]:
    """``(area address, area size, signature, flags)`` of the thread's rseq; address 0: none registered.

    OSError EIO or EINVAL where the kernel is older than 5.13.
    """
    buffer = bytearray(24)
    syscall("ptrace(GET_RSEQ)", nr.ptrace, PTRACE_GET_RSEQ_CONFIGURATION, tid, len(buffer), address_of(buffer))
    address, size, signature, flags, _pad = struct.unpack("QIIII", buffer)
    return address, size, signature, flags


def get_user_dispatch(tid: Pid) -> tuple[int, int, int, int]:
    """``(mode, selector, offset, length)`` of Syscall User Dispatch; OSError EIO where the kernel is older than 6.4."""
    buffer = bytearray(32)
    request = PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG
    syscall("ptrace(GET_SYSCALL_USER_DISPATCH)", nr.ptrace, request, tid, len(buffer), address_of(buffer))
    mode, selector, offset, length = struct.unpack("4Q", buffer)
    return mode, selector, offset, length


def set_user_dispatch(tid: Pid, mode: int, selector: int, offset: int, length: int) -> None:
    """Set what ``get_user_dispatch`` tells; mode 0 is off.  OSError where the kernel is older than 6.4."""
    buffer = bytearray(struct.pack("4Q", mode, selector, offset, length))
    request = PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG
    syscall("ptrace(SET_SYSCALL_USER_DISPATCH)", nr.ptrace, request, tid, len(buffer), address_of(buffer))


def seccomp_filter(tid: Pid, index: int) -> bytes | None:
    """Program number *index* (0 is the newest) as ``sock_filter`` records; None past the end."""
    import errno

    buffer = bytearray(_MAX_FILTER)
    try:
        count = syscall(
            "ptrace(SECCOMP_GET_FILTER)", nr.ptrace, PTRACE_SECCOMP_GET_FILTER, tid, index, address_of(buffer)
        )
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return bytes(buffer[: count * 8])


def seccomp_filter_flags(tid: Pid, index: int) -> int:
    """SECCOMP_FILTER_FLAG_* of program number *index*."""
    buffer = bytearray(struct.pack("QQ", index, 0))
    syscall(
        "ptrace(SECCOMP_GET_METADATA)", nr.ptrace, PTRACE_SECCOMP_GET_METADATA, tid, len(buffer), address_of(buffer)
    )
    flags: int = struct.unpack_from("Q", buffer, 8)[0]
    return flags
