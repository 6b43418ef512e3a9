"""The kinds of files, in the order in which a descriptor is tried against them.

A kind's module is imported when a file is met that looks like one of its own, or that the images say is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from torpor.base.late import load
from torpor.base.records import dataclass
from torpor.images import messages as m
from torpor.objects.files.model import FileKind


@dataclass(frozen=True, slots=True)
class Row:
    """``module`` has the KIND; ``looks_alike`` tells by ``look_of`` which files are worth asking its ``matches``."""

    module: str
    fd_type: int
    looks_alike: Callable[[str, int, int], bool]

    def kind(self) -> FileKind:
        """The KIND of the module, which is imported if it has not been."""
        found: FileKind = load(f"torpor.objects.files.{self.module}").KIND
        return found


#: Character devices (Documentation/admin-guide/devices.txt): of tun, and the majors of terminals.  `/dev/null`, which
#: nearly every program has open, is to load neither kind, with all of the network that the first one knows.
TUN = os.makedev(10, 200)
_TERMINALS = frozenset({4, 5, 188, 204, *range(128, 144)})


def _anonymous(*names: str) -> Callable[[str, int, int], bool]:
    links = tuple(f"anon_inode:{name}" for name in names)
    return lambda target, mode, device: target.startswith(links)


def _fifo(target: str, mode: int, device: int) -> bool:
    return stat.S_ISFIFO(mode)


def _socket(target: str, mode: int, device: int) -> bool:
    return stat.S_ISSOCK(mode)


def _deleted(target: str, mode: int, device: int) -> bool:
    return stat.S_ISREG(mode) and target.endswith(" (deleted)")


def _regular_name(target: str, mode: int, device: int) -> bool:
    return stat.S_ISREG(mode) and target.startswith("/")


def _nameless_file(target: str, mode: int, device: int) -> bool:
    return stat.S_ISREG(mode) and not target.startswith("/")


def _tun(target: str, mode: int, device: int) -> bool:
    return device == TUN


def _terminal(target: str, mode: int, device: int) -> bool:
    return os.major(device) in _TERMINALS


def _named(target: str, mode: int, device: int) -> bool:
    return target.startswith("/")


def _any(target: str, mode: int, device: int) -> bool:
    return True


KINDS: tuple[Row, ...] = (
    Row("pipe", m.fd_types.PIPE, _fifo),
    Row("epoll", m.fd_types.EVENTPOLL, _anonymous("[eventpoll]")),
    Row("eventfd", m.fd_types.EVENTFD, _anonymous("[eventfd]")),
    Row("signalfd", m.fd_types.SIGNALFD, _anonymous("[signalfd]")),
    Row("timerfd", m.fd_types.TIMERFD, _anonymous("[timerfd]")),
    Row("pidfd", m.fd_types.PIDFD, lambda target, mode, device: target.startswith(("anon_inode:[pidfd", "pidfd:"))),
    Row("mqueue_kind", m.fd_types.UND, _regular_name),
    Row("memfd", m.fd_types.MEMFD, _deleted),
    Row("fifo", m.fd_types.FIFO, _fifo),
    Row("inotify", m.fd_types.INOTIFY, _anonymous("inotify")),
    Row("fanotify", m.fd_types.FANOTIFY, _anonymous("[fanotify]")),
    Row("bpfmap", m.fd_types.BPFMAP, _anonymous("bpf-map")),
    Row("namespace", m.fd_types.NS, _nameless_file),
    Row("socket.unix", m.fd_types.UNIXSK, _socket),
    Row("socket.inet", m.fd_types.INETSK, _socket),
    Row("tunfile", m.fd_types.TUNF, _tun),
    Row("tty", m.fd_types.TTY, _terminal),
    Row("socket.netlink", m.fd_types.NETLINKSK, _socket),
    Row("socket.packet", m.fd_types.PACKETSK, _socket),
    Row("socket.unsupported", m.fd_types.UND, _socket),
    Row("regular", m.fd_types.REG, _named),
    Row("refused", -1, _any),  # whatever is left
)


def look_of(target: str, info: os.stat_result) -> tuple[str, int, int]:
    """What of a link and of its file the rows' ``looks_alike`` may depend on: a name, a type, a character device."""
    if target.startswith("/"):
        name = "/ (deleted)" if target.endswith(" (deleted)") else "/"
    else:
        head = target.partition(":")[0]
        name = target if head == "anon_inode" else head + ":"
    return name, stat.S_IFMT(info.st_mode), info.st_rdev if stat.S_ISCHR(info.st_mode) else 0


def kinds_alike(target: str, info: os.stat_result) -> tuple[FileKind, ...]:
    """The kinds that a file with that link may be of, in order."""
    look = look_of(target, info)
    found = _alike.get(look)
    if found is None:
        found = _alike[look] = tuple(row.kind() for row in KINDS if row.looks_alike(*look))
    return found


_alike: dict[tuple[str, int, int], tuple[FileKind, ...]] = {}


def kind_of_type(fd_type: int) -> FileKind | None:
    """The kind that images call *fd_type*; None for one that is not known."""
    for row in KINDS:
        if row.fd_type == fd_type:
            return row.kind()
    return None
