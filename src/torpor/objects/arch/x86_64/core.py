"""``core_entry``'s part that is this machine's: general registers, TLS bases and the FPU's extended state.

Kernel view
    The general registers of a stopped thread, and NT_X86_XSTATE: the extended state as XSAVE lays it out, whose
    software-reserved bytes say which components this kernel keeps.  The offsets of components differ between Intel's
    and AMD's processors.
Image
    ``thread_info_x86.gpregs`` and ``.fpregs``, which know components up to PKRU; where there is more (AMX in use, or
    a layout that is not known), ``torpor_xstate`` holds the bytes as the kernel gave them.
Restore
    Components that the image does not have are as a new task has them; the software-reserved bytes are this kernel's.
    The general registers are as of a task that is in no system call.
Limits
    Tasks that run code of 32 bits are not known: the mode is always the native one, and segments (set_thread_area(2))
    are written as unused.
"""

from __future__ import annotations

import struct
from functools import cache
from operator import attrgetter

from torpor.base.records import fields
from torpor.images import messages as m
from torpor.kernel.arch.x86_64.regs import UserRegs, of_new_task

#: Messages that a dump makes while the tree is frozen.
MESSAGES = ("user_desc_t", "user_x86_regs_mode")

_GENERAL = tuple(field.name for field in fields(UserRegs))
_values = attrgetter(*_GENERAL)
_LEGACY = struct.Struct("<HHHHQQII")
_XSTATE_BV_OFFSET = 512
_SW_XFEATURES_OFFSET = 464
_TLS_SLOTS = (12, 13, 14)
#: Image field, offset in the uncompacted layout of Intel's CPUs, length, format of one member, feature bit.
_COMPONENTS_INTEL = (
    ("ymmh_space", 576, 256, "I", 2),
    ("bndreg_state", 960, 64, "Q", 3),
    ("bndcsr_state", 1024, 64, "Q", 4),
    ("opmask_reg", 1088, 64, "Q", 5),
    ("zmm_upper", 1152, 512, "Q", 6),
    ("hi16_zmm", 1664, 1024, "Q", 7),
    ("pkru", 2688, 8, "I", 9),
)
_COMPONENTS_AMD = (
    ("ymmh_space", 576, 256, "I", 2),
    ("opmask_reg", 832, 64, "Q", 5),
    ("zmm_upper", 896, 512, "Q", 6),
    ("hi16_zmm", 1408, 1024, "Q", 7),
    ("pkru", 2432, 8, "I", 9),
)
#: Components behind those that have fields.
_TILES = (("", 2752, 64, "", 17), ("", 2816, 8192, "", 18))
_HEADER_END = 576


def new() -> m.core_entry:
    """An image of a task on this machine."""
    return m.core_entry(mtype=m.core_entry.X86_64)


def is_of_this_machine(core: m.core_entry) -> bool:
    """Whether it is of a task on a machine like this one."""
    return core.mtype == m.core_entry.X86_64


def fill(core: m.core_entry, regs: UserRegs, xstate: bytes) -> None:
    """Put in the registers, general and extended."""
    info = core.thread_info
    gpregs = info.gpregs
    for name, value in zip(_GENERAL, _values(regs), strict=True):
        setattr(gpregs, name, value)
    gpregs.mode = m.user_x86_regs_mode.NATIVE
    _dump_xstate(info, xstate)
    info.tls.extend(_empty_tls())


@cache
def _empty_tls() -> tuple[m.user_desc_t, ...]:
    return tuple(
        m.user_desc_t(
            entry_number=slot, base_addr=0, limit=0, seg_32bit=False, contents_h=False, contents_l=False,
            read_exec_only=True, limit_in_pages=False, seg_not_present=True, usable=False,
        )
        for slot in _TLS_SLOTS
    )  # fmt: skip


def _dump_xstate(info: m.thread_info_x86, data: bytes) -> None:
    fp = info.fpregs
    fp.cwd, fp.swd, fp.twd, fp.fop, fp.rip, fp.rdp, fp.mxcsr, fp.mxcsr_mask = _LEGACY.unpack_from(data)
    fp.st_space.extend(struct.unpack_from("<32I", data, 32))
    fp.xmm_space.extend(struct.unpack_from("<64I", data, 160))
    (present,) = struct.unpack_from("<Q", data, _XSTATE_BV_OFFSET)
    (features,) = struct.unpack_from("<Q", data, _SW_XFEATURES_OFFSET)
    fp.xsave.xstate_bv = present
    for name, offset, length, form, bit in _components():
        if features & 1 << bit and offset + length <= len(data):
            getattr(fp.xsave, name).extend(_layout(length, form).unpack_from(data, offset))
    if present & ~_known_bits() or len(data) != _length(features):
        info.torpor_xstate = data


@cache
def _layout(length: int, form: str) -> struct.Struct:
    return struct.Struct(f"<{length // struct.calcsize(form)}{form}")


@cache
def _known_bits() -> int:
    """The components that have fields: the FPU's, SSE's, and those of the table."""
    return 3 | sum(1 << bit for *_, bit in _components())


@cache
def _length(features: int) -> int:
    """How long the state would be if the components lay as the table says; others may follow, AMX on Intel's CPUs."""
    ends = {bit: offset + length for _, offset, length, _, bit in (*_components(), *_TILES)}
    return max([_HEADER_END, *(end for bit, end in ends.items() if features & 1 << bit)])


@cache
def _components() -> tuple[tuple[str, int, int, str, int], ...]:
    with open("/proc/cpuinfo", "rb", buffering=0) as stream:
        return _COMPONENTS_AMD if b"AuthenticAMD" in stream.read(256) else _COMPONENTS_INTEL


def general(core: m.core_entry) -> UserRegs:
    """The image's general registers, ready to be set."""
    regs = UserRegs(*_values(core.thread_info.gpregs))
    regs.leave_syscall()
    return regs


def for_last_call(core: m.core_entry) -> UserRegs:
    """What a task has as it makes its last call for us."""
    return of_new_task()


def extended(core: m.core_entry, current: bytes) -> bytes:
    """The image's extended state, ready to be set; *current* is that of the task that gets it.

    What this CPU does not have must be in its initial state.
    """
    info = core.thread_info
    if info.HasField("torpor_xstate") and len(info.torpor_xstate) == len(current):
        data = bytearray(info.torpor_xstate)
    else:
        data = _from_fields(info.fpregs, current)
    # The software-reserved bytes are this kernel's, not the image's.
    data[_SW_XFEATURES_OFFSET : _SW_XFEATURES_OFFSET + 48] = current[_SW_XFEATURES_OFFSET : _SW_XFEATURES_OFFSET + 48]
    return bytes(data)


def is_lost_by_calls(core: m.core_entry) -> bool:
    """Whether each system call loses a part of the extended state: none does."""
    return False


def ip_of(core: m.core_entry) -> int:
    """Where the task goes on."""
    return core.thread_info.gpregs.ip


def sp_of(core: m.core_entry) -> int:
    """The stack pointer with which the task goes on."""
    return core.thread_info.gpregs.sp


def set_ip(core: m.core_entry, ip: int) -> None:
    """Have it go on elsewhere."""
    core.thread_info.gpregs.ip = ip


def clear_tid_of(core: m.core_entry) -> int:
    """The address of set_tid_address(2)."""
    return core.thread_info.clear_tid_addr


def set_clear_tid(core: m.core_entry, address: int) -> None:
    """Note the address that the thread has given to set_tid_address(2), for ``clear_tid_of``."""
    core.thread_info.clear_tid_addr = address


def _from_fields(fp: m.user_x86_fpregs_entry, current: bytes) -> bytearray:
    data = bytearray(len(current))
    _LEGACY.pack_into(data, 0, fp.cwd, fp.swd, fp.twd, fp.fop, fp.rip, fp.rdp, fp.mxcsr, fp.mxcsr_mask)
    struct.pack_into("<32I", data, 32, *fp.st_space)
    struct.pack_into("<64I", data, 160, *fp.xmm_space)
    (features,) = struct.unpack_from("<Q", current, _SW_XFEATURES_OFFSET)
    present = (fp.xsave.xstate_bv if fp.HasField("xsave") else 3) & features
    for name, offset, length, form, bit in _components():
        values = getattr(fp.xsave, name)
        count = length // struct.calcsize(form)
        if features & 1 << bit and len(values) == count:
            struct.pack_into(f"<{count}{form}", data, offset, *values)
    struct.pack_into("<Q", data, _XSTATE_BV_OFFSET, present)
    return data
