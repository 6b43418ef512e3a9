"""Headroom: how much more memory a process can be given before somebody is killed for it.

Kernel view
    Of each control group that it is in and those above: memory.max and memory.current (v2), or
    memory.limit_in_bytes and memory.usage_in_bytes (v1), and of memory.stat the pages of files, which are given up
    first; MemAvailable of the machine.
Image
    None.
Dump
    A snapshot shares the memory of its process; each page that is written while there is one costs another.
Restore
    Nothing: it is asked for at the dump.
Limits
    Groups that are not mounted where we are limit what we do not know.
"""

from __future__ import annotations

from collections.abc import Iterator

from torpor.base.ids import Pid
from torpor.kernel.procfs.small import read_small

#: Limit, use, and what of the statistics is given up first; of v2 and of v1.
_FILES = (
    ("memory.max", "memory.current", ("active_file", "inactive_file")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file")),
)
#: What v1 has for no limit is about that.
_NO_LIMIT = 1 << 60


class Headroom:
    """Of one process, in the control groups that it is in now."""

    def __init__(self, pid: Pid) -> None:
        self._limits = list(_iter_limits(pid))

    def n_bytes(self) -> int:
        """How much there is; other processes may use it up as well."""
        found = [_available()]
        for directory, (_, current, given_up), limit in self._limits:
            try:
                used = int(read_small(f"{directory}/{current}"))
                if limit - used < found[0]:
                    used -= _sum_of(read_small(f"{directory}/memory.stat"), given_up)
            except OSError:
                continue  # the group is gone
            found.append(limit - used)
        return min(found)


def _iter_limits(pid: Pid) -> Iterator[tuple[str, tuple[str, str, tuple[str, str]], int]]:
    for line in read_small(f"/proc/{pid}/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if names and "memory" not in names.split(","):
            continue
        root = _mounted(names)
        while root:
            for files in _FILES:
                try:
                    text = read_small(f"{root}{path}/{files[0]}").strip()
                except OSError:
                    continue
                if text != "max" and int(text) < _NO_LIMIT:
                    yield f"{root}{path}", files, int(text)
            if path in ("", "/"):
                break
            path = path.rpartition("/")[0]


def _mounted(names: str) -> str:
    """Where all of the hierarchy with these controllers (none: v2) is mounted, or nothing."""
    for line in read_small("/proc/self/mountinfo").splitlines():
        head, _, tail = line.partition(" - ")
        fields, (fstype, _, options) = head.split(" "), tail.split(" ", 2)
        if fields[3] != "/" or fstype != ("cgroup" if names else "cgroup2"):
            continue
        if not names or set(names.split(",")) <= set(options.split(",")):
            return fields[4]
    return ""


def _available() -> int:
    return _sum_of(read_small("/proc/meminfo"), ("MemAvailable:",)) << 10


def _sum_of(text: str, names: tuple[str, ...]) -> int:
    lines = (line.split() for line in text.splitlines())
    return sum(int(words[1]) for words in lines if words[0] in names)
