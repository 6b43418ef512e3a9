"""CPUID's bytes are what their listing says, and its answers are the kernel's."""

import subprocess
from pathlib import Path

from harness.program import need
from torpor.kernel.arch.x86_64 import cpuid
from torpor.objects.arch import cpu


def test_the_code_is_the_listing(tmp_path: Path) -> None:
    source, object_file, binary = tmp_path / "cpuid.s", tmp_path / "cpuid.o", tmp_path / "cpuid.bin"
    source.write_text(cpuid.LISTING)
    subprocess.run([need("as"), "-o", object_file, source], check=True)
    subprocess.run([need("objcopy"), "-O", "binary", "-j", ".text", object_file, binary], check=True)
    assert binary.read_bytes() == cpuid.CODE


def _flags() -> set[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return set(next(line for line in lines if line.startswith("flags")).split(":")[1].split())


def test_the_names_are_those_of_the_kernel() -> None:
    """It may hide what the processor has (rdseed on some), but does not show what CPUID has not."""
    flags, found = _flags(), cpu.read()
    for word, names in cpu.INSTRUCTIONS.items():
        for bit, name in names.items():
            if name in flags:
                assert found.capability[word] >> bit & 1, name


def test_what_the_kernel_hides_is_not_asked_for() -> None:
    flags, found = _flags(), cpu.without_hidden(cpu.read())
    kernels_name = {"sse3": "pni"}
    for word, names in cpu.INSTRUCTIONS.items():
        for bit, name in names.items():
            if name != "osxsave":
                assert bool(found.capability[word] >> bit & 1) == (kernels_name.get(name, name) in flags), name


def test_a_leaf_that_is_not_there_is_zero() -> None:
    with cpuid.Cpuid() as found:
        assert found.leaf(0x7FFFFFFF) == (0, 0, 0, 0)
