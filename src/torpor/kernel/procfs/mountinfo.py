"""``/proc/PID/mountinfo``: see proc_pid_mountinfo(5)."""

from __future__ import annotations

from torpor.base.ids import Pid
from torpor.base.records import dataclass


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount.

    ``root`` is what part of the file system is mounted, ``point`` where, as seen from the process's root; ``options``
    are the mount's own, ``super_options`` the file system's.  Groups are 0 where there is none.
    """

    mount_id: int
    parent_id: int
    major: int
    minor: int
    root: str
    point: str
    options: tuple[str, ...]
    shared: int
    master: int
    unbindable: bool
    fstype: str
    source: str
    super_options: str
    #: Whether ``root`` was deleted (the kernel has ``//deleted`` behind it; who parses it takes that away).
    is_deleted: bool = False

    @property
    def device(self) -> tuple[int, int]:
        """Which file system (superblock)."""
        return self.major, self.minor


def unescape(text: str) -> str:
    """Undo the octal escapes of white space and backslashes."""
    first, *escaped = text.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in escaped)


def parse_line(line: str) -> Mount:
    """The mount that one line of the file tells of, without its newline; what was escaped is undone."""
    head, _, tail = line.partition(" - ")
    mount_id, parent_id, device, root, point, options, *tags = head.split(" ")
    fstype, source, *rest = tail.split(" ")
    major, _, minor = device.partition(":")
    groups = dict(tag.partition(":")[::2] for tag in tags)
    return Mount(
        mount_id=int(mount_id), parent_id=int(parent_id), major=int(major), minor=int(minor),
        root=unescape(root), point=unescape(point), options=tuple(options.split(",")),
        shared=int(groups.get("shared", 0)), master=int(groups.get("master", 0)), unbindable="unbindable" in groups,
        fstype=fstype, source=unescape(source), super_options=unescape(rest[0]) if rest else "",
    )  # fmt: skip


def parse_mountinfo(text: str) -> list[Mount]:
    """All of the file, in the kernel's order."""
    return [parse_line(line) for line in text.split("\n") if line]


def read_mountinfo(pid: Pid | str) -> list[Mount]:
    """The mounts below the root of *pid* (or ``"self"``)."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        return parse_mountinfo(stream.read())
