"""What a task has in registers besides the general ones: FPU, SSE, AVX, ... in the kernel's uncompacted layout."""

from __future__ import annotations

from torpor.base.ids import Pid
from torpor.kernel import ptrace

#: The register set of PTRACE_GETREGSET that holds all of it (NT_X86_XSTATE).
NOTE = 0x202


def read(tid: Pid) -> bytes:
    """That of a stopped tracee, of whatever length this CPU has; OSError."""
    return ptrace.get_regset(tid, NOTE)


def write(tid: Pid, data: bytes) -> None:
    """The counterpart; OSError."""
    ptrace.set_regset(tid, NOTE, data)


def is_lost_by_calls(data: bytes) -> bool:
    """Whether some of *data* is lost whenever the task makes a system call: none is."""
    return False
