"""Pseudo-terminals: the two ends of a pair, its number, what lies in it.

Kernel view
    TIOCGPTN of a master is the number of its slave, ``/dev/pts/N``.  A new master gets the lowest number that is free.
    A slave whose master is closed is hung up for good; a master whose slave has been open and is closed reads EIO.
Image
    ``tty_info_entry`` of each end, told apart by ``rdev``.  Nothing but numbers for a slave that has been hung up.
Restore
    Masters are opened until the number is right; slaves by TIOCGPTPEER.  A hung-up slave is opened beside a master that
    is closed at once.  Contents and the modes that would hinder us (locked, exclusive, packet) come last.
Limits
    A number that is taken on this machine cannot be given; the restore fails.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterable

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.records import dataclass
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel.idmap import IdMaps
from torpor.kernel.uapi.fcntl import O_PATH
from torpor.kernel.uapi.ioctls import TIOCEXCL, TIOCGPTN, TIOCPKT, TIOCSPTLCK
from torpor.objects.files import status_flags, tty_data, tty_params
from torpor.objects.files.paths import is_terminal, open_below
from torpor.objects.session import RestoreContext, RestoreStage

_MAX_SKIPPED = 4096
# The number of a terminal that was closed is free only when a worker of the kernel's has been at it.
_PAUSES_S = (0.0, 0.001, 0.004, 0.02, 0.1, 0.0)


def is_master(rdev: int) -> bool:
    """Whether the device is a master: /dev/ptmx, or a node of the majors 128 to 135."""
    return (os.major(rdev), os.minor(rdev)) == (5, 2) or 128 <= os.major(rdev) <= 135


@dataclass(slots=True)
class Pair:
    """A pair being restored.

    ``master`` is a descriptor of ours of its one description.  ``slave`` is a description of our own, which keeps the
    terminal that of its session until the tree has the slave open.
    """

    index: int
    master: OwnedFd
    master_info: m.tty_info_entry | None = None
    slave_info: m.tty_info_entry | None = None
    slave: OwnedFd | None = None

    def close(self) -> None:
        """Close our copies of both ends; those of the tree stay."""
        self.master.close()
        if self.slave is not None:
            self.slave.close()


class Early:
    """Masters of slaves that are mounted somewhere, as on a container's /dev/console: they come with the mounts."""

    def __init__(self, context: RestoreContext) -> None:
        self._masters: dict[int, OwnedFd] = {}
        context.at(RestoreStage.CLOSED, self._masters.clear)

    def make(self, directory: int, index: int) -> None:
        """Have there be a slave of that number in the instance of devpts that is mounted at *directory*."""
        if index not in self._masters:
            masters = Masters(directory)
            self._masters[index] = masters.open("ptmx", index)
            masters.close()

    def take(self, index: int) -> OwnedFd | None:
        """The master of that number, if it was made."""
        return self._masters.pop(index, None)


class Masters:
    """Opens masters by number; those met on the way are kept until all are there.

    One of any number does not get one of *wanted*: it may keep that number for good.
    """

    def __init__(self, root_fd: int, wanted: Iterable[int] = (), early: Early | None = None) -> None:
        self._root_fd = root_fd
        self._wanted = frozenset(wanted)
        self._early = early
        self._spare: dict[str, dict[int, OwnedFd]] = {}

    def open(self, path: str, index: int | None) -> OwnedFd:
        """An unlocked master of that number, or of any."""
        made = self._early.take(index) if self._early is not None and index is not None else None
        if made is not None:
            return made
        for pause_s in _PAUSES_S:
            found = self._find(self._spare.setdefault(path, {}), path, index)
            if found is not None:
                return found
            self._spare[path].pop(max(self._spare[path], default=-1), None)
            time.sleep(pause_s)
        raise RestoreError(
            f"pty {index} is in use on this machine",
            hint="end whatever has that terminal open, or restore into a new mount namespace",
        )

    def _find(self, spare: dict[int, OwnedFd], path: str, index: int | None) -> OwnedFd | None:
        for _ in range(_MAX_SKIPPED):
            found = index
            if index is None:
                found = next((number for number in spare if number not in self._wanted), None)
            if found in spare:
                return spare.pop(found)
            fd = OwnedFd(open_below(self._root_fd, path, os.O_RDWR | os.O_NOCTTY, is_terminal))
            number = tty_params.read_int(fd.fileno(), TIOCGPTN)
            tty_params.write_int(fd.fileno(), TIOCSPTLCK, 0)
            spare[number] = fd
            if index is not None and number > index:
                break
        return None

    def close(self) -> None:
        """Give up those that nobody wanted."""
        self._spare.clear()


def prepare(pair: Pair, flags: int, idmaps: IdMaps) -> None:
    """Settings of a new pair; *flags* are its master's."""
    master = pair.master.fileno()
    status_flags.restore(master, flags)
    info = pair.slave_info or pair.master_info
    if info is not None:
        tty_params.restore(master, info)
    if pair.slave_info is not None:
        pair.slave = OwnedFd(open_slave(pair, os.O_RDWR | os.O_NONBLOCK))
        tty_params.restore_owner(pair.slave.fileno(), pair.slave_info, idmaps)
    _restore_node(pair, idmaps)


def dump_slave_node(master: int, info: m.tty_info_entry, idmaps: IdMaps) -> None:
    """Who may write to the terminal (mesg(1)) and whose it is, of the slave of *master*: into *info* of the master."""
    with OwnedFd(open_slave_node(master)) as node:
        dump_node(os.fstat(node.fileno()), info, idmaps)


def dump_node(found: os.stat_result, info: m.tty_info_entry, idmaps: IdMaps) -> None:
    """The same of a slave that was met itself."""
    info.torpor_slave_mode = stat.S_IMODE(found.st_mode)
    info.torpor_slave_uid, info.torpor_slave_gid = idmaps.inside(found.st_uid, found.st_gid)


def open_slave_node(master: int) -> int:
    """The slave's node by O_PATH: the slave itself is not opened, and nobody sees it."""
    return tty_data.open_slave(master, O_PATH)


def _restore_node(pair: Pair, idmaps: IdMaps) -> None:
    for info in (pair.slave_info, pair.master_info):
        if info is None or not info.HasField("torpor_slave_mode"):
            continue
        with OwnedFd(open_slave_node(pair.master.fileno())) as node:
            path = f"/proc/self/fd/{node.fileno()}"
            try:
                os.chown(path, *idmaps.outside(info.torpor_slave_uid, info.torpor_slave_gid))
                os.chmod(path, info.torpor_slave_mode & 0o777)
            except OSError as error:
                log.warn(f"pty {pair.index} keeps the owner and mode of a new terminal: {error.strerror}")
        return


def open_slave(pair: Pair, flags: int) -> int:
    """A description of the slave."""
    return tty_data.open_slave(pair.master.fileno(), flags)


def fill(pair: Pair, output: bytes, to_slave: bytes) -> None:
    """Contents, and the modes; the last thing done to a pair.  *output* is for the master to read."""
    master, info = pair.master.fileno(), pair.master_info
    if pair.slave is None and info is not None and info.torpor_slave_closed:
        os.close(open_slave(pair, os.O_RDWR))
    slave = None if pair.slave is None else pair.slave.fileno()
    tty_data.put_output(master, slave, output)
    if slave is not None:
        tty_data.put_input(master, slave, to_slave)
        if pair.slave_info is not None and pair.slave_info.exclusive:
            fcntl.ioctl(slave, TIOCEXCL)
    if info is None:
        return
    if info.packet_mode:
        tty_params.write_int(master, TIOCPKT, 1)
    if info.locked:
        tty_params.write_int(master, TIOCSPTLCK, 1)


def check_index(info: m.tty_info_entry) -> int:
    """The number of a pty; ImageError if it is none."""
    if not info.HasField("pty") or info.pty.index > 1 << 20:
        raise ImageError(f"tty-info.img: {info.id}: a pty without a number")
    return info.pty.index
