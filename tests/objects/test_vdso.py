"""The vdso: the same one again, and images whose vdso is another kernel's."""

import os
import platform
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import engine
from harness.edited import forget_manifest
from harness.events import time_limit_s
from harness.flavours import Flavour, start, workload_test
from harness.workload import Workload
from torpor.base.ids import Pid
from torpor.images import kinds
from torpor.images.pagemap import PAGE_BYTES, PE_PRESENT, PageRun, load_pagemap, store_pagemap
from torpor.images.store import load_all, load_one, store_one
from torpor.images.stores.directory import DirStore
from torpor.kernel import elf
from torpor.kernel.arch import nr, vdso
from torpor.kernel.procfs.maps import read_maps
from torpor.kernel.procfs.task import read_threads
from torpor.kernel.syscall import syscall
from torpor.objects.arch import core as image
from torpor.tracee.thread import Thread, tgkill

test_vdso = workload_test("vdso")

#: VMA_AREA_VDSO, VMA_AREA_VVAR
VDSO, VVAR = 1 << 3, 1 << 12

_CLOCK = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
_READ_BY_PROGRAMS = ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter")
#: What libc has taken pointers to when the program begins.
_OF_LIBC = {f"{vdso.PREFIX}{name}" for name in ("clock_gettime", "gettimeofday", "time", "clock_getres", "getcpu")}

_PTRACE_SINGLESTEP = 9
#: What follows the last look at the data is less.
_N_STOPPED = 32

Change = Callable[[bytes], bytes]
each_flavour = pytest.mark.parametrize("flavour", [Flavour.HOST, Flavour.JOB])


def other_bytes(code: bytes) -> bytes:
    """The same functions; a byte that none of them reads differs, as if another compiler had made it."""
    return code[:9] + b"\xff" + code[10:]


def renamed(code: bytes) -> bytes:
    """A function that no kernel has."""
    return code.replace(b"clock_getres\0", b"clock_gotres\0")


def smaller(code: bytes) -> bytes:
    """A page less than this kernel's, and none of the functions that reach out of it.

    Where there is but one page, or those of libc reach out, as on 7.2, there is no smaller one: it has as many pages.
    """
    out = {name: found for name, found in elf.read_functions(code).items() if found.offset + found.size > PAGE_BYTES}
    if len(code) == PAGE_BYTES or _OF_LIBC & out.keys():
        return other_bytes(code)
    cut = bytearray(code[:PAGE_BYTES])
    for symbol in out.values():
        # st_shndx, st_value and st_size of Elf64_Sym become those of an undefined symbol.
        entry = struct.pack("<QQ", symbol.offset, symbol.size)
        while (at := cut.find(entry)) >= 0:
            cut[at - 2 : at + 16] = bytes(18)
    return bytes(cut)


def change_vdso(directory: Path, pid: int, change: Change) -> int:
    """Rewrite the images so that the vdso is what *change* makes of it; where it lies."""
    with DirStore(directory, "r") as store:
        mm = load_one(store, kinds.MM, pid)
        found = load_pagemap(store, pid)
        old = next(entry for entry in mm.vmas if entry.status & VDSO)
        run = next(each for each in found.runs if each.vaddr <= old.start < each.end)
        ((at, _),) = found.places(old.start, old.end)
    pages = directory / f"pages-{found.pages_id}.img"
    data = bytearray(pages.read_bytes())
    before = bytes(data[at : at + old.end - old.start])
    after = change(before)
    data[at : at + len(before)] = after
    pages.write_bytes(data)
    runs = list(found.runs)
    runs[runs.index(run)] = PageRun(run.vaddr, run.n_pages + (len(after) - len(before)) // PAGE_BYTES, PE_PRESENT)
    old.end = old.start + len(after)
    forget_manifest(directory)
    with DirStore(directory, "w") as store:
        store_one(store, "MM", mm, pid)
        store_pagemap(store, pid, found.pages_id, runs)
    return int(old.start)


def ns_pid(workload: Workload) -> int:
    with DirStore(workload.images, "r") as store:
        return int(load_all(store, kinds.PSTREE)[0].pid)


@pytest.mark.root
@each_flavour
@pytest.mark.parametrize("change", [other_bytes, renamed, smaller])
def test_the_images_vdso_is_another_kernels(flavour: Flavour, change: Change) -> None:
    with start(flavour, "vdso") as workload:
        workload.wait_ready()
        workload.dump()
        at = change_vdso(workload.images, ns_pid(workload), change)
        workload.restore()
        (kept,) = [vma for vma in read_maps(Pid(workload.pid)) if vma.start <= at < vma.end]
        (real,) = [vma for vma in read_maps(Pid(workload.pid)) if vma.is_vdso]
        assert not kept.name
        assert real.start != at
        # Once more: the old one is ordinary memory now, with jumps to the real one.
        workload.dump()
        workload.restore()
        assert [vma.start for vma in read_maps(Pid(workload.pid)) if vma.is_vdso] == [real.start]
        # And to a third kernel.
        workload.dump()
        change_vdso(workload.images, ns_pid(workload), change)
        workload.restore()
        assert [vma.start for vma in read_maps(Pid(workload.pid)) if vma.is_vdso] != [real.start]
        workload.expect_pass()


@pytest.mark.root
def test_no_thread_is_carried_in_the_midst_of_it(tmp_path: Path) -> None:
    """Two threads ask it without a pause, and would be met there nearly each time."""
    with Workload.start("vdso") as workload:
        workload.wait_ready()
        (place,) = [vma for vma in read_maps(Pid(workload.pid)) if vma.is_vdso]
        for turn in range(4):
            images = tmp_path / str(turn)
            images.mkdir()
            engine.dump(workload.pid, images, leave_running=True)
            with DirStore(images, "r") as store:
                cores = [load_one(store, kinds.CORE, tid) for tid in read_threads(Pid(workload.pid))]
            assert len(cores) == 2
            met = [core for core in cores if place.start <= image.ip_of(core) < place.end]
            # Where the machine's clock cannot be read from there it makes calls, and nothing is in its midst then.  An
            # emulator may take all interrupts where it is read, so that a thread is met there over and over.
            can_be_helped = platform.machine() == "x86_64" or time_limit_s(1) == 1
            assert not (met and can_be_helped) or _CLOCK.read_text().strip() not in _READ_BY_PROGRAMS, met
        workload.expect_pass()


#: Prints whether the first page of the vdso's data says that it has offsets (``seq`` 1, VDSO_CLOCKMODE_TIMENS).
_HAS_OFFSETS = """
import ctypes
place = next(line for line in open("/proc/self/maps") if line.endswith("[vvar]\\n"))
print(b"\\1\\0\\0\\0\\xff\\xff\\xff\\x7f" in ctypes.string_at(int(place.partition("-")[0], 16), 4096))
"""


@pytest.mark.root
@pytest.mark.parametrize(("prefix", "has_offsets"), [((), "False"), (("unshare", "--time", "--fork"), "True")])
def test_offsets_are_in_the_first_page_of_its_data(prefix: tuple[str, ...], has_offsets: str) -> None:
    done = subprocess.run([*prefix, sys.executable, "-c", _HAS_OFFSETS], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == has_offsets


def _step(thread: Thread) -> int:
    """One instruction further; where it is then."""
    syscall("ptrace", nr.ptrace, _PTRACE_SINGLESTEP, thread.tid, 0, 0)
    assert thread.wait().is_signal
    return thread.get_regs().ip


def _way_out(thread: Thread, code: range) -> list[int]:
    """The last instructions that *thread* passes in *code*, if it comes out of it by single steps.

    The kernel writes the data at each tick, and whoever has read before and is slow begins again.
    """
    for inside in (False, True):
        for _ in range(500):
            if (_step(thread) in code) == inside:
                break
    passed = [thread.get_regs().ip]
    while len(passed) < 500 and (at := _step(thread)) in code:
        passed.append(at)
    return list(dict.fromkeys(reversed(passed)))[:_N_STOPPED]


def _stop_in_its_midst(pid: Pid) -> int:
    """Stop *pid* by job control, each thread at one of the last instructions of the vdso; how many these are."""
    (place,) = [vma for vma in read_maps(pid) if vma.is_vdso]
    threads = [Thread(pid, tid) for tid in read_threads(pid) if tid != pid]
    for thread in threads:
        thread.seize()
        thread.interrupt()
        thread.wait_interrupted()
    passed = _way_out(threads[0], range(place.start, place.end))
    for thread, wanted in zip(threads, passed, strict=False):
        for _ in range(1000):
            if _step(thread) == wanted:
                break
    for thread in threads:
        tgkill(pid, thread.tid, signal.SIGSTOP)
    for thread in threads:
        thread.detach()
    return len(passed)


@pytest.mark.root
def test_who_is_stopped_in_its_midst_sees_no_clock_go_back() -> None:
    """In a time namespace, whose offsets are others after the next restore."""
    with Workload.start("vdso_threads", [str(_N_STOPPED)]) as workload:
        workload.wait_ready()
        workload.dump()
        with engine.using(["unshare", "--time", "--fork", "--monotonic", "5000", *engine.command()]):
            workload.restore()
        pid, began = Pid(workload.pid), time.monotonic()
        assert _stop_in_its_midst(pid) > 10
        workload.dump()
        # The offsets become less by what has gone by here, which is to be more than since their last look at the clock.
        time.sleep(time.monotonic() - began)
        workload.restore()
        os.kill(pid, signal.SIGCONT)
        workload.expect_pass()


@pytest.mark.root
def test_no_room_for_the_data() -> None:
    with Workload.start("counter") as workload:
        workload.wait_ready()
        workload.dump()
        at = change_vdso(workload.images, workload.pid, bytes)
        drop(workload.images, workload.pid, VVAR)
        workload.restore()
        assert [vma.start for vma in read_maps(Pid(workload.pid)) if vma.is_vdso] != [at]
        workload.expect_pass()


@pytest.mark.root
def test_no_vdso_in_the_images() -> None:
    with Workload.start("counter") as workload:
        workload.wait_ready()
        workload.dump()
        drop(workload.images, workload.pid, VDSO | VVAR)
        workload.restore()
        assert not [vma for vma in read_maps(Pid(workload.pid)) if vma.is_vdso or vma.is_vvar]
        # On some machines programs return from a signal's handler by it: without one they take none.
        if f"{vdso.PREFIX}rt_sigreturn" not in vdso.WITHOUT_DATA:
            workload.expect_pass()


def drop(directory: Path, pid: int, status: int) -> None:
    """Take mappings and their pages out of the images."""
    with DirStore(directory, "r") as store:
        mm, found = load_one(store, kinds.MM, pid), load_pagemap(store, pid)
    gone = [entry for entry in mm.vmas if entry.status & status]
    kept = [entry for entry in mm.vmas if not entry.status & status]
    del mm.vmas[:]
    mm.vmas.extend(kept)
    data = (directory / f"pages-{found.pages_id}.img").read_bytes()
    runs, pages = [], b""
    for run, offset in found.laid_out():
        if not any(entry.start <= run.vaddr < entry.end for entry in gone):
            pages += data[offset : offset + run.n_pages * PAGE_BYTES]
            runs.append(run)
    (directory / f"pages-{found.pages_id}.img").write_bytes(pages)
    forget_manifest(directory)
    with DirStore(directory, "w") as store:
        store_one(store, "MM", mm, pid)
        store_pagemap(store, pid, found.pages_id, runs)
