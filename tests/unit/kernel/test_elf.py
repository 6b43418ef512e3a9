"""Symbols of the running kernel's vdso, and of bytes that are nearly one."""

import ctypes
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.skips import missing
from torpor.base.ids import Pid
from torpor.kernel import elf
from torpor.kernel.procfs.maps import read_maps


def own_vdso() -> bytes:
    """The code that this process has."""
    import os

    (vma,) = [vma for vma in read_maps(Pid(os.getpid())) if vma.is_vdso]
    return ctypes.string_at(vma.start, vma.length)


def test_functions_of_the_vdso() -> None:
    found = elf.read_functions(own_vdso())
    assert {"__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time", "__vdso_getcpu"} <= found.keys()
    assert found["clock_gettime"].offset == found["__vdso_clock_gettime"].offset


def test_agrees_with_readelf(tmp_path: Path) -> None:
    if shutil.which("readelf") is None:
        missing("the command readelf (Debian: binutils)")
    path = tmp_path / "vdso.so"
    path.write_bytes(own_vdso())
    shown = subprocess.run(["readelf", "-W", "--dyn-syms", path], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in shown.splitlines() if " FUNC " in line]
    theirs = {row[7].partition("@")[0]: (int(row[1], 16), int(row[2])) for row in rows}
    ours = {name: (symbol.offset, symbol.size) for name, symbol in elf.read_functions(own_vdso()).items()}
    assert ours == theirs


def test_without_the_old_hash_table() -> None:
    data = own_vdso()
    # DT_HASH becomes DT_DEBUG, which is nothing here.
    at = data.find((4).to_bytes(8, "little"), data.find((16).to_bytes(8, "little")))
    changed = data[:at] + (21).to_bytes(8, "little") + data[at + 8 :]
    assert elf.read_functions(changed) == elf.read_functions(data)


@pytest.mark.parametrize("data", [b"", b"\x7fELF", bytes(8192), b"\x7fELF\x02\x01" + b"\xff" * 8192])
def test_no_vdso(data: bytes) -> None:
    with pytest.raises(elf.ElfError):
        elf.read_functions(data)


def test_mutated() -> None:
    data = own_vdso()
    rng = random.Random(7)
    for _ in range(3000):
        changed = bytearray(data[: rng.choice((len(data), len(data), rng.randrange(len(data))))])
        for _ in range(rng.choice((1, 4, 32))):
            if changed:
                changed[rng.randrange(min(len(changed), 0x800))] = rng.choice((0, 0xFF, 0x7F, rng.randrange(256)))
        try:
            found = elf.read_functions(bytes(changed))
        except elf.ElfError:
            continue
        assert all(0 <= each.offset <= each.offset + each.size <= len(changed) for each in found.values())
