"""What is decided about an image's vdso, with this process as the puppet."""

import ctypes
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from torpor.base.errors import TorporError
from torpor.base.ids import Pid
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.pages import StoreSink, open_contents
from torpor.images.store import store_one
from torpor.images.stores.spooled import Spool, SpooledStore
from torpor.images.stores.stream import Pipe, TarStore
from torpor.kernel import elf
from torpor.kernel.procfs.maps import read_maps
from torpor.objects.memory import vdso
from torpor.objects.memory.areas import AREA_REGULAR, AREA_VDSO, AREA_VVAR
from torpor.tracee.stub import ParkedVdso

PARKED = ParkedVdso(tuple(vma for vma in read_maps(Pid(os.getpid())) if vma.is_vdso or vma.is_vvar))
AT = 0x7000_0000_0000


def image() -> tuple[m.mm_entry, bytes]:
    """An mm image with this kernel's mappings, the code at ``AT``; the code."""
    ours = PARKED.vdso
    assert ours is not None
    mm = m.mm_entry()
    for vma in PARKED.mappings:
        start = vma.start - ours.start + AT
        status = AREA_REGULAR | (AREA_VDSO if vma.is_vdso else AREA_VVAR)
        mm.vmas.add(start=start, end=start + vma.length, pgoff=0, shmid=0, prot=vma.prot, flags=2, status=status, fd=-1)
    return mm, ctypes.string_at(ours.start, ours.length)


def thread(ip: int) -> Any:
    core = m.core_entry()
    core.thread_info.gpregs.ip = ip
    return SimpleNamespace(core=core)


def plan(code: bytes | None, parked: ParkedVdso = PARKED, threads: tuple[Any, ...] = ()) -> vdso.Plan:
    return vdso.plan(image()[0], parked, Pid(os.getpid()), lambda start, end: code, threads)


def test_the_same_is_moved() -> None:
    code = image()[1]
    made = plan(code, threads=(thread(AT + 1),))
    assert made.place == (AT, len(code))
    assert not made.code
    assert made.copy is None


def test_without_pages_it_is_taken_for_the_same() -> None:
    assert plan(None).place is not None


def test_another_leads_to_ours() -> None:
    code = bytearray(image()[1])
    code[9] = 0xFF
    made = plan(bytes(code))
    assert made.place is not None
    functions = elf.read_functions(bytes(code))
    at = functions["__vdso_clock_gettime"].offset
    target = (made.place[0] + at).to_bytes(8, "little")
    assert made.code[at : at + 12] == b"\x48\xb8" + target + b"\xff\xe0"
    at = functions["__vdso_time"].offset
    assert made.code[at : at + 2] == b"\x48\xb8"


def test_the_code_comes_by_a_stream(tmp_path: Path) -> None:
    """Its pages are the last of many; nobody seeks in the archive, neither who writes nor who reads it."""
    code = bytearray(image()[1])
    code[9] = 0xFF
    low = AT - (512 << 12)
    memory = {low: bytes(range(256)) * (400 << 4), AT: bytes(code)}
    fd = os.open(tmp_path / "X.tar", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with TarStore(Pipe(fd, "X.tar"), "X.tar") as store:
        with StoreSink(store).open(kinds.PAGEMAP, 7, sum(map(len, memory.values()))) as stream:
            for at, content in memory.items():
                stream.write_at(stream.room([(at, len(content))]), [memoryview(content)])
        store_one(store, kinds.INVENTORY, m.inventory_entry(img_version=2))
        store.commit()
    source, sink = os.pipe()
    with open(sink, "wb") as writer, open(source, "rb") as reader:

        def send() -> None:
            with writer:
                writer.write((tmp_path / "X.tar").read_bytes())

        feed = threading.Thread(target=send)
        feed.start()
        with SpooledStore(reader, "a pipe", Spool(tmp_path)) as read, open_contents(read, 7) as contents:
            made = vdso.plan(image()[0], PARKED, Pid(os.getpid()), contents.between, ())
            assert contents.between(low, low + 4096) == memory[low][:4096]
        feed.join()
    assert made.code_at == AT and made.code[9] == 0xFF


def test_no_vdso_here() -> None:
    code = image()[1]
    made = plan(code, ParkedVdso(()))
    assert made.place is None
    at = elf.read_functions(code)["__vdso_time"].offset
    assert made.code[at : at + 8].hex() == "b8c90000000f05c3"
    with pytest.raises(TorporError):
        plan(None, ParkedVdso(()))


def test_a_thread_at_an_entry_goes_on_in_a_copy() -> None:
    code = bytearray(image()[1])
    code[9] = 0xFF
    entry = AT + elf.read_functions(bytes(code))["__vdso_clock_gettime"].offset
    threads = tuple(thread(ip) for ip in (entry, entry + 1, entry + 40))
    copy = plan(bytes(code), threads=threads).copy
    assert copy is not None
    assert [each.core.thread_info.gpregs.ip for each in threads] == [entry, entry + 1 - AT + copy.code_at, entry + 40]
    assert copy.code == bytes(code)
    assert copy.code_at - copy.start == AT - min(each.start for each in image()[0].vmas)


def test_a_damaged_one() -> None:
    with pytest.raises(TorporError, match="the image's vdso"):
        plan(bytes(8192))
