"""Memory that is locked once it is touched, as smaps of kernels with and without a name for it say it."""

import ctypes
import mmap
import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from torpor.base.ids import Pid
from torpor.kernel.arch import nr
from torpor.kernel.procfs.maps import Vma, parse_smaps, read_smaps
from torpor.kernel.syscall import syscall
from torpor.kernel.uapi.mman import MLOCK_ONFAULT
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.memory import mm, vmas

_SMAPS = """\
7f0000000000-7f0000010000 rw-p 00000000 00:00 0
Size:                 64 kB
KernelPageSize:        4 kB
Locked:                0 kB
VmFlags: rd wr mr mw me {} ac
"""


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    vmas._lock_on_fault_is_nameless.cache_clear()
    yield
    vmas._lock_on_fault_is_nameless.cache_clear()


def _maps(words: str) -> list[Vma]:
    return list(parse_smaps(_SMAPS.format(words)))


@pytest.mark.parametrize(
    ("ours", "theirs", "is_it"),
    [
        ("lo lf", "lo lf", True), ("lo lf", "lo", False), ("lo lf", "lo ??", False), ("lo lf", "??", False),
        ("lo ??", "lo ??", True), ("lo ??", "lo", False), ("lo ??", "??", False), ("lo ??", "", False),
    ],
)  # fmt: skip
def test_a_flag_without_a_name(monkeypatch: pytest.MonkeyPatch, ours: str, theirs: str, is_it: bool) -> None:
    """What such a page of ours has tells what the kernel means by it."""
    monkeypatch.setattr(vmas, "syscall", lambda *_asked: 0)
    monkeypatch.setattr(vmas, "address_of", lambda _memory: 0x7F0000001000)
    monkeypatch.setattr(vmas, "read_smaps", lambda _pid: _maps(ours))
    assert vmas.is_locked_on_fault(_maps(theirs)[0].flags) is is_it
    monkeypatch.setattr(mm, "read_smaps", lambda _pid: _maps(theirs))
    process = SimpleNamespace(pid=1, maps=[])
    assert mm._is_locked_on_fault(process) is is_it  # type: ignore[arg-type]


@pytest.mark.parametrize("on_fault", [True, False])
def test_memory_of_ours(on_fault: bool) -> None:
    """However this kernel shows it."""
    with mmap.mmap(-1, PAGE_SIZE) as memory:
        at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        syscall("mlock2", nr.mlock2, at, PAGE_SIZE, MLOCK_ONFAULT if on_fault else 0)
        flags = next(vma.flags for vma in read_smaps(Pid(os.getpid())) if vma.start <= at < vma.end)
        assert vmas.is_locked_on_fault(flags) is on_fault
        syscall("munlock", nr.munlock, at, PAGE_SIZE)


def test_where_we_may_lock_nothing_it_is_what_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_asked: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(vmas, "syscall", refuse)
    assert vmas.is_locked_on_fault(frozenset(("lo", "??")))
    assert not vmas.is_locked_on_fault(frozenset(("lo",)))
