"""The differential table of /proc/PID: every file of a process and of its threads, before and after.

``pytest -s`` prints what differs, with the reason why it may.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import pytest

from harness.events import time_limit_s
from harness.program import Program
from torpor.kernel.arch import nr

USED, MOMENT, PLACE = "what it has used", "state of the moment", "where its pages are"
#: File, or file and line or field: why it is not the same.
NOT_THE_SAME: Mapping[str, str] = {
    "arch_status": MOMENT,
    "autogroup": "its number, which is new: test_attributes.py asks for the rest",
    "io": USED,
    "ksm_stat": PLACE,
    "numa_maps": PLACE,
    "oom_score": MOMENT,
    "sched": USED,
    "schedstat": USED,
    "smaps_rollup": PLACE,
    "statm": PLACE,
    "timens_offsets": "its clocks go on from where they were",
    "stat 9": "flags: whether it has executed a program, or used a privilege, since it was made",
    **{f"stat {number}": USED for number in (*range(10, 18), 42, 43, 44)},
    "stat 22": "when it was made",
    "stat 24": PLACE,
    "stat 39": MOMENT,
    "status FDSize": "room in the table, which grows as it is used",
    **{f"status {key}": USED for key in ("VmPeak", "VmHWM")},
    **{f"status {key}": PLACE for key in ("VmRSS", "RssAnon", "RssFile", "RssShmem", "VmPTE", "VmSwap")},
    "status SigQ": "signals that wait for any process of its user",
    **{f"status {key}ary_ctxt_switches": USED for key in ("volunt", "nonvolunt")},
}  # fmt: skip
#: Not read: memory, what reading changes, and what only a task that is stopped tells.
NEVER_READ = frozenset(("clear_refs", "mem", "pagemap", "stack", "syscall", "wchan"))

_MAKER = """
import mmap, os, threading
def advise(memory):
    for number in range(1, 26):
        try:
            memory.madvise(number, (number - 1) * 65536, 65536)
        except OSError:
            pass
with open(os.path.join(os.environ["HOME"], "mapped"), "wb+") as file:
    file.truncate(4 << 20)
    kept = [mmap.mmap(file.fileno(), 0), mmap.mmap(-1, 4 << 20)]
kept.append(mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
for each in kept:
    advise(each)
ends = [os.pipe() for _ in range(2)]
threading.Thread(target=os.read, args=(ends[0][0], 1), daemon=True).start()
print("ready", flush=True)
os.read(ends[1][0], 1)
"""
#: What writes were tracked by, and, before 5.15, that execve(2) has mapped it.
_FLAGS_OF_THE_KERNEL = ("sd", "dw")
Table = dict[tuple[str, str], str]


def _by_key(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        yield key, value


def _by_field(text: str) -> Iterator[tuple[str, str]]:
    name, _, rest = text.rpartition(")")
    yield "2", name
    yield from ((str(number), field) for number, field in enumerate(rest.split(), 3))


def _mappings(text: str) -> Iterator[tuple[str, str]]:
    """Without device and inode, and of what smaps says of each the flags."""
    place = ""
    for line in text.splitlines():
        if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
            place, *rest = line.split(None, 5)
            yield place, " ".join([*rest[:2], *rest[4:]])
        elif line.startswith("VmFlags:"):
            yield f"{place} flags", " ".join(word for word in line.split() if word not in _FLAGS_OF_THE_KERNEL)


_PARTS: Mapping[str, Callable[[str], Iterator[tuple[str, str]]]] = {
    "status": _by_key, "stat": _by_field, "maps": _mappings, "smaps": _mappings,
}  # fmt: skip


class Walked(Program):
    """The program, and all that /proc says of it."""

    def begin(self) -> None:
        """Start it."""
        self.start([sys.executable, "-c", _MAKER], env={"PYTHONDONTWRITEBYTECODE": "1"})
        self.wait_log("(?m)^ready$")

    def wait_at_rest(self) -> None:
        """Until all threads are in their last read(2): on the way there they run, and the C library maps memory."""
        deadline = time.monotonic() + time_limit_s(20)
        tasks = f"/proc/{self.pid}/task"
        while not all(_read(f"{tasks}/{tid}/syscall").startswith(f"{nr.read} ") for tid in os.listdir(tasks)):
            assert time.monotonic() < deadline, "it does not come to rest"
            time.sleep(0.001)

    def ask(self) -> Table:
        """Everything of it and its threads."""
        found: Table = {}
        base = f"/proc/{self.pid}"
        for who in ("", *(f"task/{tid}/" for tid in sorted(os.listdir(f"{base}/task")))):
            for name in set(os.listdir(f"{base}/{who}")) - NEVER_READ:
                path = f"{base}/{who}{name}"
                if not os.path.isdir(path) or os.path.islink(path):
                    text = _read(path)
                    parts = _PARTS[name](text) if name in _PARTS else [("", text)]
                    found.update({(who, f"{name} {part}".strip()): value for part, value in parts})
        return found


def _read(path: str) -> str:
    try:
        if os.path.islink(path):
            return os.readlink(path)
        with open(path, encoding="ascii", errors="surrogateescape") as stream:
            return stream.read()
    except OSError as error:
        return str(error.strerror)


@pytest.mark.root
def test_everything_comes_back() -> None:
    with Walked() as program:
        program.begin()
        program.wait_at_rest()
        before = program.ask()
        program.sleep_and_wake()
        program.wait_at_rest()
        after = program.ask()
    lost = []
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            reason = NOT_THE_SAME.get(key[1], NOT_THE_SAME.get(key[1].partition(" ")[0]))
            print(f"{key[0]:15} {key[1]:40} {reason or 'LOST'}")
            if reason is None:
                lost.append(f"{key[0]}{key[1]} was {before.get(key)!r}, is {after.get(key)!r}")
    print(f"{len(before)} answers")
    assert len(before) > 500
    assert not lost, "\n".join(lost)
