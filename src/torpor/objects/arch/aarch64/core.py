"""``core_entry``'s part that is this machine's: general registers, the thread pointer, vectors, authentication keys.

Kernel view
    The register sets NT_PRSTATUS, NT_PRFPREG, NT_ARM_TLS, NT_ARM_PACA_KEYS, NT_ARM_PACG_KEYS,
    NT_ARM_PAC_ENABLED_KEYS and NT_ARM_SVE of a stopped thread; those of them that this processor and kernel have.
Image
    ``thread_info_aarch64``: ``gpregs``, ``fpsimd``, ``tls``, ``pac_keys``.  A thread that was stopped between two
    instructions of SVE's, and not in a system call, where those registers hold nothing, has them in ``torpor_sve``.
Restore
    All sets by ptrace(2); SVE's at the very end, for each system call loses them.
Limits
    SME, GCS, permission overlays and FPMR are refused (``uncarried``).  TPIDR2 belongs to SME.
"""

from __future__ import annotations

import struct

from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel.arch.aarch64 import xstate
from torpor.kernel.arch.aarch64.regs import UserRegs, of_new_task

#: Messages that a dump makes while the tree is frozen.
MESSAGES = ("thread_info_aarch64",)

_N_GENERAL = 31
_VECTORS = struct.Struct("<64Q")
_STATUS = struct.Struct("<II8x")
_WORD = struct.Struct("<Q")
_MASK32 = (1 << 32) - 1
_ADDRESS_KEYS = tuple(f"ap{name}key_{half}" for name in ("ia", "ib", "da", "db") for half in ("lo", "hi"))
_GENERIC_KEYS = ("apgakey_lo", "apgakey_hi")


def new() -> m.core_entry:
    """An image of a task on this machine."""
    return m.core_entry(mtype=m.core_entry.AARCH64)


def is_of_this_machine(core: m.core_entry) -> bool:
    """Whether it is of a task on a machine like this one."""
    return core.mtype == m.core_entry.AARCH64


def fill(core: m.core_entry, regs: UserRegs, extended: bytes) -> None:
    """Put in the registers, general and extended."""
    info = core.ti_aarch64
    values = struct.unpack("<34Q", regs.pack())
    info.gpregs.regs.extend(values[:_N_GENERAL])
    info.gpregs.sp, info.gpregs.pc, info.gpregs.pstate = values[_N_GENERAL:]
    info.fpsimd.vregs.extend(_VECTORS.unpack_from(extended))
    info.fpsimd.fpsr, info.fpsimd.fpcr = _STATUS.unpack_from(extended, _VECTORS.size)
    sets = xstate.sets_of(extended)
    (info.tls,) = _WORD.unpack_from(sets[xstate.NT_ARM_TLS])
    if xstate.NT_ARM_PACA_KEYS in sets:
        _put(info.pac_keys.pac_address_keys, _ADDRESS_KEYS, sets[xstate.NT_ARM_PACA_KEYS])
        if xstate.NT_ARM_PAC_ENABLED_KEYS in sets:
            (enabled,) = _WORD.unpack(sets[xstate.NT_ARM_PAC_ENABLED_KEYS])
            info.pac_keys.pac_address_keys.pac_enabled_key = enabled
    if xstate.NT_ARM_PACG_KEYS in sets:
        _put(info.pac_keys.pac_generic_keys, _GENERIC_KEYS, sets[xstate.NT_ARM_PACG_KEYS])
    if xstate.is_lost_by_calls(extended):
        info.torpor_sve = sets[xstate.NT_ARM_SVE]


def _put(entry: m.pac_address_keys | m.pac_generic_keys, names: tuple[str, ...], data: bytes) -> None:
    for name, (value,) in zip(names, _WORD.iter_unpack(data), strict=True):
        setattr(entry, name, value)


def _taken(entry: m.pac_address_keys | m.pac_generic_keys, names: tuple[str, ...]) -> bytes:
    return b"".join(_WORD.pack(getattr(entry, name)) for name in names)


def general(core: m.core_entry) -> UserRegs:
    """The image's general registers, ready to be set."""
    entry = core.ti_aarch64.gpregs
    if len(entry.regs) != _N_GENERAL:
        raise ImageError(f"a core image with {len(entry.regs)} general registers")
    return UserRegs(*(*entry.regs, entry.sp, entry.pc, entry.pstate))


def for_last_call(core: m.core_entry) -> UserRegs:
    """What a task has as it makes its last call for us.

    A stop at the end of a call shows in x7 that it is one, and puts back, as the task goes on, what was there at the
    beginning (report_syscall, arch/arm64/kernel/ptrace.c, v6.1): whatever has been set meanwhile.
    """
    regs = of_new_task()
    regs.x7 = general(core).x7
    return regs


def extended(core: m.core_entry, current: bytes) -> bytes:
    """The image's extended state, ready to be set; *current* is that of the task that gets it.

    RestoreError where this processor has not what the image's had, ImageError where the image makes no sense.
    """
    info = core.ti_aarch64
    if len(info.fpsimd.vregs) != 2 * 32:
        raise ImageError(f"a core image with {len(info.fpsimd.vregs)} halves of vectors")
    fpsimd = _VECTORS.pack(*info.fpsimd.vregs) + _STATUS.pack(info.fpsimd.fpsr & _MASK32, info.fpsimd.fpcr & _MASK32)
    here = xstate.sets_of(current)
    sets = {xstate.NT_ARM_TLS: _WORD.pack(info.tls) + here[xstate.NT_ARM_TLS][_WORD.size :]}
    if info.HasField("pac_keys"):
        sets.update(_keys(info.pac_keys, here))
    if info.HasField("torpor_sve"):
        sets[xstate.NT_ARM_SVE] = _sve(info.torpor_sve, here)
    return xstate.pack(fpsimd, sets)


def _keys(keys: m.pac_keys, here: dict[int, bytes]) -> dict[int, bytes]:
    sets = {}
    if keys.HasField("pac_address_keys"):
        sets[xstate.NT_ARM_PACA_KEYS] = _taken(keys.pac_address_keys, _ADDRESS_KEYS)
        if keys.pac_address_keys.HasField("pac_enabled_key"):
            sets[xstate.NT_ARM_PAC_ENABLED_KEYS] = _WORD.pack(keys.pac_address_keys.pac_enabled_key)
    if keys.HasField("pac_generic_keys"):
        sets[xstate.NT_ARM_PACG_KEYS] = _taken(keys.pac_generic_keys, _GENERIC_KEYS)
    if not sets.keys() <= here.keys():
        raise RestoreError(
            "the images have keys of pointer authentication, and this processor authenticates no pointers",
            hint="restore on a processor like the one that the checkpoint was made on",
        )
    return sets


def _sve(data: bytes, here: dict[int, bytes]) -> bytes:
    if xstate.NT_ARM_SVE not in here:
        raise RestoreError("the images have registers of SVE's, which this processor has not")
    if len(data) < xstate.SVE_HEADER.size or xstate.SVE_HEADER.unpack_from(data)[0] != len(data):
        raise ImageError(f"a core image with {len(data)} bytes of SVE's registers")
    return data


def is_lost_by_calls(core: m.core_entry) -> bool:
    """Whether each system call loses a part of the extended state."""
    return core.ti_aarch64.HasField("torpor_sve")


def ip_of(core: m.core_entry) -> int:
    """Where the task goes on."""
    return core.ti_aarch64.gpregs.pc


def sp_of(core: m.core_entry) -> int:
    """The stack pointer with which the task goes on."""
    return core.ti_aarch64.gpregs.sp


def set_ip(core: m.core_entry, ip: int) -> None:
    """Have it go on elsewhere."""
    core.ti_aarch64.gpregs.pc = ip


def clear_tid_of(core: m.core_entry) -> int:
    """The address of set_tid_address(2)."""
    return core.ti_aarch64.clear_tid_addr


def set_clear_tid(core: m.core_entry, address: int) -> None:
    """Note the address that the thread has given to set_tid_address(2), for ``clear_tid_of``."""
    core.ti_aarch64.clear_tid_addr = address
