"""Build ids: of real files as readelf says, of files made by hand, and of none."""

import os
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from harness.skips import missing
from torpor.kernel.build_id import read_build_id


def _read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_build_id(fd)
    finally:
        os.close(fd)


def _elf(bits: int, note_at: int, note: bytes) -> bytes:
    header = bytearray(64)
    header[:6] = b"\x7fELF" + bytes([bits // 32, 1])
    if bits == 64:
        struct.pack_into("<Q", header, 32, 64)
        struct.pack_into("<H", header, 56, 1)
        program = struct.pack("<IIQQQQQQ", 4, 4, note_at, 0, 0, len(note), len(note), 4)
    else:
        struct.pack_into("<I", header, 28, 64)
        struct.pack_into("<H", header, 44, 1)
        program = struct.pack("<IIIIIIII", 4, note_at, 0, 0, len(note), len(note), 4, 4)
    return (bytes(header) + program).ljust(note_at, b"\0") + note


_OTHER = struct.pack("<III", 4, 8, 1) + b"GNU\0" + b"o" * 8
_NOTE = struct.pack("<III", 4, 6, 3) + b"GNU\0" + b"abcdef\0\0"


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("at", [200, 5000])
def test_made_by_hand(tmp_path: Path, bits: int, at: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(_elf(bits, at, _OTHER + _NOTE))
    assert _read(path) == b"abcdef"
    path.write_bytes(_elf(bits, at, _OTHER))
    assert _read(path) == b""


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n", bytes(5000), _elf(64, 2 << 20, _NOTE)])
def test_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    assert _read(tmp_path / "file") == b""


def test_hostile_files_raise_nothing(tmp_path: Path) -> None:
    chance = random.Random(3)
    whole = _elf(64, 200, _OTHER + _NOTE)
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 5)):
            data[chance.randrange(4, len(data))] = chance.choice((0, 0xFF, 0x7F, chance.randrange(256)))
        (tmp_path / "file").write_bytes(data)
        _read(tmp_path / "file")


def test_a_real_file() -> None:
    if shutil.which("readelf") is None:
        missing("the command readelf (Debian: binutils)")
    path = Path(sys.executable).resolve()
    told = subprocess.run(["readelf", "-n", str(path)], capture_output=True, text=True, check=True).stdout
    expected = next((line.split()[-1] for line in told.splitlines() if "Build ID:" in line), "")
    assert _read(path).hex() == expected
