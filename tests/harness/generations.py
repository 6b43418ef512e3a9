"""Dumps of one workload at three moments, between which its memory changes; the later ones lean on those before them.

The memory is changed from outside, so that the workload need know nothing of it, and put back before it checks itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness import engine, parent_images
from harness.workload import Workload
from torpor.images import kinds
from torpor.images.store import load_all, load_one
from torpor.images.stores.directory import DirStore

PAGE = 4096
_EMPTY = bytes(PAGE)
_MAX_PAGES = 16384
_RSEQ_SIZE = 32
#: What of each page is changed, in its midst.
_AT, _MASK = 2048, 0x5A
Places = list[tuple[int, int]]


def inner_pid(pid: int) -> int:
    """The pid of *pid* as it knows it itself."""
    lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    return next(int(line.split()[-1]) for line in lines if line.startswith("NSpid:"))


def processes_of(workload: Workload) -> list[int]:
    """Those of the tree; not who looks after it from outside of its pid namespace."""
    home = os.readlink(f"/proc/{workload.pid}/ns/pid")
    return [pid for pid in workload.processes() if os.readlink(f"/proc/{pid}/ns/pid") == home]


def mappings(pid: int) -> Iterator[tuple[int, int, bool]]:
    """(start, end, is it shared) of what *pid* can write and nobody needs to run, as far as it is not vast.

    Neighbours are one: which of them the kernel joins depends on what has become of them, and not on what they hold.
    """
    first = last = 0
    was_shared = False
    for start, end, is_shared in _each_mapping(pid):
        if start == last and is_shared is was_shared:
            last = end
            continue
        if first < last:
            yield first, min(last, first + _MAX_PAGES * PAGE), was_shared
        first, last, was_shared = start, end, is_shared
    if first < last:
        yield first, min(last, first + _MAX_PAGES * PAGE), was_shared


def _each_mapping(pid: int) -> Iterator[tuple[int, int, bool]]:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        place, mode, *_, name = (*line.split(None, 5), "")[:6]
        start, end = (int(each, 16) for each in place.split("-"))
        if mode.startswith("rw") and not name.startswith("[") and not name.endswith((".so", ".2", ".6")):
            yield start, end, mode.endswith("s")


def memory_of(workload: Workload) -> dict[tuple[int, int], bytes]:
    """The pages of all processes that are not empty, by the pid that each process knows, and address."""
    found = {}
    for pid in processes_of(workload):
        if Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "Z":
            continue  # nobody has waited for it yet
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            inner = inner_pid(pid)
            for start, end, _ in mappings(pid):
                for address, page in _pages(memory.fileno(), start, end):
                    if page != _EMPTY:
                        found[inner, address] = page
    return found


def _pages(memory: int, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    at = start
    while at < end:
        try:
            content = os.pread(memory, end - at, at)
        except OSError:
            at += PAGE  # beyond the end of a file; what follows may be another mapping
            continue
        for offset in range(0, len(content), PAGE):
            yield at + offset, content[offset : offset + PAGE]
        at += len(content)


def changes_in(workload: Workload, memory: dict[tuple[int, int], bytes]) -> list[str]:
    """What of *memory* the processes, which have been restored, do not have, or have besides.

    What the kernel writes there by itself (rseq) does not count.
    """
    restored = memory_of(workload)
    with DirStore(workload.images) as store:
        threads = [(entry.pid, tid) for entry in load_all(store, kinds.PSTREE) for tid in entry.threads]
        for pid, tid in threads:
            rseq = load_one(store, kinds.CORE, tid).thread_core.rseq_entry.rseq_abi_pointer
            place = (pid, rseq & -PAGE)
            for pages in (memory, restored):
                if place in pages:
                    at = rseq % PAGE
                    pages[place] = pages[place][:at] + bytes(_RSEQ_SIZE) + pages[place][at + _RSEQ_SIZE :]
    places = sorted(memory.keys() | restored.keys())
    return [f"pid {pid}, {at:#x}" for pid, at in places if memory.get((pid, at)) != restored.get((pid, at))]


def change(workload: Workload, salt: int) -> Places:
    """Change some pages of each process, other ones for each *salt*; which, by (pid that it knows, address).

    What is shared is changed by the first process alone.
    """
    changed = []
    for index, pid in enumerate(processes_of(workload)):
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
            for start, end, is_shared in mappings(pid):
                if is_shared and index:
                    continue
                for at in range(start + salt * PAGE, end, 5 * PAGE):
                    if _flip(memory.fileno(), at):
                        changed.append((inner_pid(pid), at))
    return changed


def _flip(memory: int, at: int) -> bool:
    try:
        (byte,) = os.pread(memory, 1, at + _AT)
        return os.pwrite(memory, bytes([byte ^ _MASK]), at + _AT) == 1
    except OSError:
        return False


def put_back(workload: Workload, changed: Places) -> None:
    """Undo it."""
    pids = {inner_pid(pid): pid for pid in processes_of(workload)}
    for inner, at in changed:
        with open(f"/proc/{pids[inner]}/mem", "r+b", buffering=0) as memory:
            assert _flip(memory.fileno(), at)


def dump(
    workload: Workload, options: Sequence[str] = (), earlier: Callable[[int, Path], object] | None = None
) -> tuple[Places, dict[tuple[int, int], bytes]]:
    """Three dumps, the last of which ends it and whose images lean on those before, which *earlier* makes.

    What was changed, and the memory that it must have when it is restored.
    """
    changed: Places = []
    sets = [workload.base / "first", workload.base / "second", workload.images]
    for salt, images in enumerate(sets[:-1], 1):
        images.mkdir()
        if earlier is not None:
            earlier(workload.pid, images)
        else:
            engine.dump(workload.pid, images, leave_running=True, options=options)
        changed += change(workload, salt)
    memory = memory_of(workload)
    workload.dump(options=options)
    # The latest first: each must still have all of its own when it is leant on.
    for images, before in ((sets[2], sets[1]), (sets[1], sets[0])):
        (images / "parent").symlink_to(f"../{before.name}")
        assert parent_images.lean_on_parent(images) > 10
    return changed, memory
