"""What a task has in registers besides the general ones: several register sets, here as one string of bytes.

First ``struct user_fpsimd_state``, then, each behind its note and length, those of the others that this processor and
kernel have: the thread pointer, the keys of pointer authentication, SVE's registers.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator

from torpor.base.ids import Pid
from torpor.kernel import ptrace

SIZE = 528

#: Notes of include/uapi/linux/elf.h.
NT_PRFPREG, NT_ARM_TLS, NT_ARM_SVE = 2, 0x401, 0x405
NT_ARM_PACA_KEYS, NT_ARM_PACG_KEYS, NT_ARM_PAC_ENABLED_KEYS = 0x407, 0x408, 0x40A
NT_ARM_TAGGED_ADDR_CTRL, NT_ARM_SSVE, NT_ARM_ZA = 0x409, 0x40B, 0x40C
NT_ARM_FPMR, NT_ARM_POE, NT_ARM_GCS = 0x40E, 0x40F, 0x410
_NOTES = (NT_ARM_TLS, NT_ARM_PACA_KEYS, NT_ARM_PACG_KEYS, NT_ARM_PAC_ENABLED_KEYS, NT_ARM_SVE)
_SET = struct.Struct("<II")
#: ``struct user_sve_header``: its size, the most it may be, the length of a vector, the most that may be, flags.
SVE_HEADER = struct.Struct("<IIHHHH")
SVE_PT_REGS_SVE = 1
#: What this kernel has answered that it has not.
_absent: set[int] = set()


def read(tid: Pid) -> bytes:
    """That of a stopped tracee; OSError."""
    return pack(ptrace.get_regset(tid, NT_PRFPREG), read_sets(tid, _NOTES))


def read_sets(tid: Pid, notes: Iterable[int]) -> dict[int, bytes]:
    """Those register sets of a stopped tracee that there are; OSError."""
    found = {}
    for note in notes:
        if note in _absent:
            continue
        try:
            data = ptrace.get_regset(tid, note)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENODEV):
                raise
            _absent.add(note)
            continue
        # What is behind the end that SVE's set names are zeroes, as far as it could reach (6.1).
        found[note] = data[: SVE_HEADER.unpack_from(data)[0]] if note == NT_ARM_SVE else data
    return found


def write(tid: Pid, data: bytes) -> None:
    """The counterpart; sets that are not in *data* stay as they are.  OSError."""
    ptrace.set_regset(tid, NT_PRFPREG, data[:SIZE])
    for note, each in sets_of(data).items():
        # Its registers are those of the first set, unless it says that it has more.
        if note != NT_ARM_SVE or is_live(each):
            ptrace.set_regset(tid, note, each)


def pack(fpsimd: bytes, sets: dict[int, bytes]) -> bytes:
    """What ``read`` gives, of its parts."""
    parts = [fpsimd]
    for note, data in sets.items():
        parts += (_SET.pack(note, len(data)), data)
    return b"".join(parts)


def sets_of(data: bytes) -> dict[int, bytes]:
    """All but the first set, by their notes."""
    return dict(_iter_sets(data))


def _iter_sets(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = SIZE
    while at < len(data):
        note, length = _SET.unpack_from(data, at)
        at += _SET.size
        yield note, data[at : at + length]
        at += length


def is_live(sve: bytes) -> bool:
    """Whether a set NT_ARM_SVE holds registers that the first set has only a part of."""
    return bool(SVE_HEADER.unpack_from(sve)[4] & SVE_PT_REGS_SVE)


def is_lost_by_calls(data: bytes) -> bool:
    """Whether some of *data* is lost whenever the task makes a system call, as is the ABI of SVE."""
    sve = sets_of(data).get(NT_ARM_SVE)
    return sve is not None and is_live(sve)
