"""aarch64's part of images: what is put in comes out again, and what the processor here has not is refused."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import cast

import pytest

from torpor.base.errors import RefusedError, RestoreError
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.store import store_one
from torpor.images.stores.memory import MemStore
from torpor.kernel.arch.aarch64 import xstate
from torpor.kernel.arch.aarch64.regs import UserRegs
from torpor.objects.arch.aarch64 import core as image
from torpor.objects.arch.aarch64 import cpu, uncarried
from torpor.objects.model import DumpThread

_REGS = UserRegs(*range(1, 35))
_FPSIMD = bytes(number % 251 for number in range(520)) + bytes(8)
_TLS = {xstate.NT_ARM_TLS: struct.pack("<Q", 0x7000)}
_KEYS = {
    xstate.NT_ARM_PACA_KEYS: bytes(range(64)),
    xstate.NT_ARM_PAC_ENABLED_KEYS: struct.pack("<Q", 15),
    xstate.NT_ARM_PACG_KEYS: bytes(range(100, 116)),
}


def _sve(flags: int, length: int = 600) -> dict[int, bytes]:
    header = xstate.SVE_HEADER.pack(length, length, 16, 64, flags, 0)
    return {xstate.NT_ARM_SVE: header.ljust(length, b"\7")}


def _stored(sets: dict[int, bytes]) -> m.core_entry:
    core = image.new()
    image.fill(core, _REGS, xstate.pack(_FPSIMD, sets))
    return core


@pytest.mark.parametrize("more", [{}, _KEYS, _sve(xstate.SVE_PT_REGS_SVE), _KEYS | _sve(xstate.SVE_PT_REGS_SVE)])
def test_registers_come_out_as_they_were(more: dict[int, bytes]) -> None:
    core = _stored(_TLS | more)
    assert image.general(core) == _REGS
    assert image.for_last_call(core) == UserRegs(x7=_REGS.x7)
    assert (image.ip_of(core), image.sp_of(core)) == (_REGS.ip, _REGS.sp)
    current = xstate.pack(bytes(xstate.SIZE), _TLS | _KEYS | _sve(0))
    again = image.extended(core, current)
    assert again[: xstate.SIZE] == _FPSIMD
    assert xstate.sets_of(again) == _TLS | more
    assert image.is_lost_by_calls(core) == (xstate.NT_ARM_SVE in more)


def test_what_sve_does_not_hold_is_not_stored() -> None:
    assert not image.is_lost_by_calls(_stored(_TLS | _sve(0)))


@pytest.mark.parametrize(("sets", "what"), [(_KEYS, "authentication"), (_sve(xstate.SVE_PT_REGS_SVE), "SVE")])
def test_a_processor_without_it_is_refused(sets: dict[int, bytes], what: str) -> None:
    with pytest.raises(RestoreError, match=what):
        image.extended(_stored(_TLS | sets), xstate.pack(bytes(xstate.SIZE), _TLS))


@pytest.mark.parametrize("data", [b"", b"x", bytes(16), xstate.SVE_HEADER.pack(1 << 30, 16, 16, 16, 1, 0)])
def test_registers_of_sve_that_make_no_sense_are_refused(data: bytes) -> None:
    core = _stored(_TLS)
    core.ti_aarch64.torpor_sve = data
    with pytest.raises(ImageError, match="SVE"):
        image.extended(core, xstate.pack(bytes(xstate.SIZE), _TLS | _sve(0)))


@pytest.mark.parametrize("field", ["regs", "vregs"])
def test_images_with_too_few_registers_are_refused(field: str) -> None:
    core = _stored(_TLS)
    info = core.ti_aarch64
    del (info.gpregs.regs if field == "regs" else info.fpsimd.vregs)[3:]
    with pytest.raises(ImageError, match="core image with 3"):
        image.general(core)
        image.extended(core, xstate.pack(bytes(xstate.SIZE), _TLS))


@pytest.mark.parametrize(
    ("note", "unused", "used", "what"),
    [
        (xstate.NT_ARM_GCS, bytes(24), struct.pack("<QQQ", 1, 0, 0x7000), "a guarded control stack"),
        (xstate.NT_ARM_POE, struct.pack("<Q", 7), struct.pack("<Q", 0x77), "permission overlays"),
        (xstate.NT_ARM_FPMR, bytes(8), struct.pack("<Q", 1), "8-bit floating point"),
        (xstate.NT_ARM_ZA, bytes(16), bytes(16 + 256), "SME's array"),
    ],
)
def test_what_is_lost_is_refused(
    note: int, unused: bytes, used: bytes, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that the lab's processor has not: the others are in tests/objects/test_uncarriable.py."""
    process = SimpleNamespace(describe=lambda: "pid 7 (program)")
    thread = cast(DumpThread, SimpleNamespace(tid=7, process=process))
    monkeypatch.setattr(xstate, "read_sets", lambda tid, notes: {note: unused})
    uncarried.check(thread)
    monkeypatch.setattr(xstate, "read_sets", lambda tid, notes: {note: used})
    with pytest.raises(RefusedError, match=f"pid 7 .* uses .*{what}"):
        uncarried.check(thread)


def _processor(features: str, sve_bytes: int = 0) -> m.cpuinfo_entry:
    entry = m.cpuinfo_entry(torpor_features=features.split())
    if sve_bytes:
        entry.torpor_sve_bytes = sve_bytes
    return entry


@pytest.mark.parametrize(
    ("theirs", "wanted", "problem"),
    [
        (_processor("fp asimd sve", 64), "ins,fpu", ""),
        (_processor("fp evtstrm"), "ins,fpu", ""),
        (_processor("fp sve2 paca"), "ins,fpu", "lacks paca, sve2"),
        (_processor("fp sve2 paca"), "fpu", ""),
        (_processor("fp sve", 32), "ins,fpu", "vectors of 32 bytes.* set to 64"),
        (_processor("fp sve", 32), "ins", ""),
        (_processor("fp"), "cpu", "other features"),
        (_processor("fp sve2", 16), "none", ""),
        (m.cpuinfo_entry(), "ins,fpu", ""),
        (m.cpuinfo_entry(x86_entry=[m.cpuinfo_x86_entry(
            vendor_id=1, cpu_family=6, model=1, stepping=1, capability_ver=2, capability=[0]
        )]), "ins", "another kind"),
    ],
)  # fmt: skip
def test_the_processor_is_compared(
    theirs: m.cpuinfo_entry, wanted: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "read", lambda: _processor("asimd fp sve", 64))
    store = MemStore()
    store_one(store, "CPUINFO", theirs)
    if problem:
        with pytest.raises(RestoreError, match=problem):
            cpu.check(store, wanted)
    else:
        cpu.check(store, wanted)
