"""What a task can have that is not carried, and is refused by name: shadow stacks, masked addresses, I/O ports, LDTs.

Kernel view
    ``x86_Thread_features`` and ``untag_mask`` in ``/proc/PID/status``; the register set NT_386_IOPERM;
    modify_ldt(2) inside.
Image
    None: the dump is refused.
Restore
    None.
Limits
    I/O ports and the local descriptor table are known only once a thread is stopped; the rest is seen while the
    process runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from torpor.base.errors import RefusedError
from torpor.kernel import ptrace
from torpor.kernel.arch import nr
from torpor.kernel.procfs.status import Status
from torpor.objects.model import DumpProcess, DumpThread
from torpor.tracee.batch import Batch

NT_386_IOPERM = 0x201
_ALL = (1 << 64) - 1
_READ_LDT, _LDT_ENTRY = 0, 8


def problems(who: str, status: Status) -> Iterator[RefusedError]:
    """What can be seen from outside of a process that runs."""
    if "shstk" in status.word("x86_Thread_features"):
        yield RefusedError(f"{who} uses a shadow stack", hint="shadow stacks are not carried yet")
    if status.bits("untag_mask") not in (0, _ALL):
        yield RefusedError(
            f"{who} uses linear address masking", hint="it is not carried; checkpoint it before it asks for that"
        )


def check(thread: DumpThread) -> None:
    """RefusedError for what only a stopped thread tells: ports of the machine's that it may use."""
    try:
        ports = ptrace.get_regset(thread.tid, NT_386_IOPERM)
    except OSError:
        return  # it has none, or the kernel knows none
    if ports:
        raise RefusedError(
            f"{thread.process.describe()} may use I/O ports of this machine (ioperm(2))",
            hint="they are not carried; checkpoint it when it has given them up",
        )


def ask(process: DumpProcess, batch: Batch) -> None:
    """Whether it has segments of its own; RefusedError if so.  The kernel answers 0 for a process that has none."""
    table = batch.call(nr.modify_ldt, _READ_LDT, batch.out(_LDT_ENTRY), _LDT_ENTRY, may_fail=True)

    def collect() -> None:
        if table.value == _LDT_ENTRY:
            raise RefusedError(
                f"{process.describe()} has a local descriptor table (modify_ldt(2)), as emulators use",
                hint="it is not carried; checkpoint it before it asks for that",
            )

    batch.then(collect)
