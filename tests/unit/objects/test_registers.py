"""When the registers as the kernel gives them are stored beside CRIU's fields: where these cannot say all."""

from __future__ import annotations

import struct

import pytest

from torpor.images import messages as m
from torpor.objects.arch.x86_64 import core as registers

_AVX2, _PKRU, _AMX = 7, 1 << 9, 3 << 17


def _state(features: int, present: int, length: int) -> bytes:
    data = bytearray(length)
    struct.pack_into("<Q", data, 464, features)
    struct.pack_into("<Q", data, 512, present)
    for at in range(576, length):
        data[at] = at % 251
    return bytes(data)


@pytest.mark.parametrize(
    ("table", "features", "present", "length", "is_kept"),
    [
        (registers._COMPONENTS_INTEL, _AVX2, _AVX2, 832, False),
        (registers._COMPONENTS_INTEL, _AVX2 | _PKRU, _AVX2, 2696, False),
        (registers._COMPONENTS_AMD, _AVX2 | _PKRU, _AVX2 | _PKRU, 2440, False),
        (registers._COMPONENTS_AMD, _AVX2 | _PKRU, _AVX2, 840, True),  # packed otherwise, as by another maker
        (registers._COMPONENTS_INTEL, _AVX2 | _PKRU | _AMX, _AVX2, 11008, False),
        (registers._COMPONENTS_INTEL, _AVX2 | _PKRU | _AMX, _AVX2 | _AMX, 11008, True),
        (registers._COMPONENTS_INTEL, _AVX2 | 1 << 19, _AVX2 | 1 << 19, 1088, True),
    ],
)
def test_the_raw_state_is_kept_where_fields_do_not_do(
    monkeypatch: pytest.MonkeyPatch,
    table: tuple[tuple[str, int, int, str, int], ...],
    features: int,
    present: int,
    length: int,
    is_kept: bool,
) -> None:
    monkeypatch.setattr(registers, "_components", lambda: table)
    registers._known_bits.cache_clear()
    registers._length.cache_clear()
    try:
        info = m.thread_info_x86()
        data = _state(features, present, length)
        registers._dump_xstate(info, data)
        assert info.HasField("torpor_xstate") == is_kept
        if not is_kept:
            again = registers._from_fields(info.fpregs, data)
            end = max(at + n for _, at, n, _, bit in table if features & 1 << bit)
            kept = [(at, at + n) for _, at, n, _, bit in table if features & 1 << bit]
            assert all(again[at:until] == data[at:until] for at, until in kept) and end <= length
            assert again[512:520] == data[512:520]
    finally:
        registers._known_bits.cache_clear()
        registers._length.cache_clear()
