"""What a task can have that is not carried, and is refused by name: SME, guarded control stacks, tags, and the like.

Kernel view
    The register sets NT_ARM_SSVE, NT_ARM_ZA, NT_ARM_GCS, NT_ARM_POE, NT_ARM_FPMR, NT_ARM_TAGGED_ADDR_CTRL of a stopped
    thread; in NT_ARM_SVE, a length of vectors that the thread has chosen.
Image
    None: the dump is refused.
Restore
    None.
Limits
    All is known only once a thread is stopped.  Memory with tags is refused as memory (``objects/memory/vmas``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from torpor.base.errors import RefusedError
from torpor.kernel.arch.aarch64 import xstate
from torpor.kernel.procfs.status import Status
from torpor.objects.arch.aarch64 import cpu
from torpor.objects.model import DumpProcess, DumpThread
from torpor.tracee.batch import Batch

#: POR_EL0 of a task that has not changed it (arch/arm64/include/asm/por.h).
_POR_EL0_INIT = 0x7


def problems(who: str, status: Status) -> Iterator[RefusedError]:
    """What can be seen from outside of a process that runs: nothing of this machine's."""
    return iter(())


def check(thread: DumpThread) -> None:
    """RefusedError for what only a stopped thread tells: state that would be lost."""
    sets = xstate.read_sets(thread.tid, [note for note, _, _ in _USED])
    for what in (what for note, what, is_used in _USED if note in sets and is_used(sets[note])):
        raise RefusedError(
            f"{thread.process.describe()} uses {what}", hint="it is not carried; checkpoint it when it does not"
        )


def _is_streaming(data: bytes) -> bool:
    return xstate.is_live(data)


def _has_array(data: bytes) -> bool:
    return len(data) > xstate.SVE_HEADER.size


def _has_chosen(data: bytes) -> bool:
    length: int = xstate.SVE_HEADER.unpack_from(data)[2]
    return length != cpu.vector_bytes()


def _first_word(data: bytes) -> int:
    word: int = struct.unpack_from("<Q", data)[0]
    return word


_USED = (
    (xstate.NT_ARM_SSVE, "SME's streaming mode", _is_streaming),
    (xstate.NT_ARM_ZA, "SME's array", _has_array),
    (xstate.NT_ARM_SVE, "vectors of a length that it has chosen", _has_chosen),
    (
        xstate.NT_ARM_TAGGED_ADDR_CTRL,
        "tags of addresses (PR_SET_TAGGED_ADDR_CTRL)",
        lambda data: bool(_first_word(data)),
    ),
    (xstate.NT_ARM_GCS, "a guarded control stack", lambda data: bool(_first_word(data))),
    (xstate.NT_ARM_POE, "permission overlays", lambda data: _first_word(data) != _POR_EL0_INIT),
    (xstate.NT_ARM_FPMR, "formats of 8-bit floating point (FPMR)", lambda data: bool(_first_word(data))),
)


def ask(process: DumpProcess, batch: Batch) -> None:
    """Nothing here is only for the task itself to say."""
