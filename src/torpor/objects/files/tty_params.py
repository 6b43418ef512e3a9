"""What a terminal is set to: termios, window size, owner, lock, exclusive and packet mode.

Kernel view
    TCGETS2, TIOCGLCKTRMIOS, TIOCGWINSZ, TIOCGPTLCK, TIOCGEXCL, TIOCGPKT.  Asked of a master, the first three answer for
    its slave.  A terminal that has been hung up answers EIO to all.
Image
    The fields of ``tty_info_entry``.  CRIU copies the bytes of the control characters into the words of ``c_cc``,
    four a word and lowest first, and what lies beyond them has no meaning.
Restore
    The counterparts of these calls: the settings, then what of them is locked, which does not change any more; the
    pair's modes when nothing is in their way.
Limits
    Output that was stopped by the user (^S, tcflow) goes on: nothing tells that it was.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from torpor.base import log
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel.idmap import IdMaps
from torpor.kernel.uapi.ioctls import (
    TCGETS2,
    TCSETS,
    TCSETS2,
    TIOCGETD,
    TIOCGEXCL,
    TIOCGLCKTRMIOS,
    TIOCGPKT,
    TIOCGPTLCK,
    TIOCGWINSZ,
    TIOCSLCKTRMIOS,
    TIOCSWINSZ,
)
from torpor.objects.files.model import OpenFile

_N_CC = 19
# struct termios: four flag words, the line discipline, control characters; termios2 adds the speeds.
_termios = struct.Struct(f"<4IB{_N_CC}s")
_termios2 = struct.Struct(f"<4IB{_N_CC}s2I")
_winsize = struct.Struct("<4H")
_words_of_cc = struct.Struct(f"<{_N_CC}I")


def discipline(fd: int) -> int:
    """The line discipline, which answers all the other questions; 0 is the usual one, and that of one hung up."""
    try:
        return read_int(fd, TIOCGETD)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return 0


def is_hung_up(fd: int) -> bool:
    """Whether the terminal has been hung up."""
    try:
        fcntl.ioctl(fd, TCGETS2, bytes(_termios2.size))
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return True
    return False


def read_int(fd: int, request: int) -> int:
    """The answer of an ioctl that gives an int."""
    return int(struct.unpack("i", fcntl.ioctl(fd, request, bytes(4)))[0])


def write_int(fd: int, request: int, value: int) -> None:
    """An ioctl that takes a pointer to an int."""
    fcntl.ioctl(fd, request, struct.pack("i", value))


def dump(file: OpenFile, info: m.tty_info_entry, *, is_master: bool) -> None:
    """Fill in all of *info* that the terminal itself can tell."""
    info.rdev = file.stat.st_rdev
    info.dev = file.stat.st_dev
    info.uid, info.gid = file.process.idmaps.inside(file.stat.st_uid, file.stat.st_gid)
    info.locked = info.exclusive = info.packet_mode = False
    if is_hung_up(file.fd):
        return
    info.exclusive = bool(read_int(file.fd, TIOCGEXCL))
    if is_master:
        info.locked = bool(read_int(file.fd, TIOCGPTLCK))
        info.packet_mode = bool(read_int(file.fd, TIOCGPKT))
    _unpack(read_termios(file.fd), info.termios)
    _unpack(fcntl.ioctl(file.fd, TIOCGLCKTRMIOS, bytes(_termios.size)), info.termios_locked)
    size = info.winsize
    size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel = _winsize.unpack(
        fcntl.ioctl(file.fd, TIOCGWINSZ, bytes(_winsize.size))
    )


def read_termios(fd: int) -> bytes:
    """The settings as ``write_termios`` takes them."""
    return fcntl.ioctl(fd, TCGETS2, bytes(_termios2.size))


def write_termios(fd: int, settings: bytes) -> None:
    """Set all settings at once; what is queued stays."""
    fcntl.ioctl(fd, TCSETS2, settings)


def changed(settings: bytes, *, iflag: int, oflag: int, lflag: int, cc: dict[int, int]) -> bytes:
    """*settings* with other flags, and no control characters but *cc*."""
    _, _, cflag, _, line, _, ispeed, ospeed = _termios2.unpack(settings)
    characters = bytes(cc.get(index, 0) for index in range(_N_CC))
    return _termios2.pack(iflag, oflag, cflag, lflag, line, characters, ispeed, ospeed)


def lflag_of(settings: bytes) -> int:
    """The local flags (``c_lflag``: ICANON, ECHO, ...) of what ``read_termios`` gives."""
    return int(_termios2.unpack(settings)[3])


def cc_of(settings: bytes, index: int) -> int:
    """The control character *index* (VEOF, VMIN, ...) of what ``read_termios`` gives."""
    return int(_termios2.unpack(settings)[5][index])


def _unpack(raw: bytes, entry: m.termios_entry) -> None:
    padded = raw.ljust(_termios2.size, b"\0")
    entry.c_iflag, entry.c_oflag, entry.c_cflag, entry.c_lflag, entry.c_line, characters, ispeed, ospeed = (
        _termios2.unpack(padded)
    )
    entry.c_ispeed, entry.c_ospeed = ispeed, ospeed
    entry.c_cc.extend(_words_of_cc.unpack(characters.ljust(_words_of_cc.size, b"\0")))


def restore(fd: int, info: m.tty_info_entry) -> None:
    """Give the terminal behind *fd* (or, for a master, its slave) all settings but the modes of the pair."""
    try:
        if info.HasField("termios"):
            termios = info.termios
            if termios.c_ospeed:
                write_termios(fd, _pack(termios) + struct.pack("<2I", termios.c_ispeed, termios.c_ospeed))
            else:
                fcntl.ioctl(fd, TCSETS, _pack(termios))
        if info.HasField("termios_locked") and any(_pack(info.termios_locked)):
            fcntl.ioctl(fd, TIOCSLCKTRMIOS, _pack(info.termios_locked))
        if info.HasField("winsize"):
            _set_size(fd, info)
    except struct.error as error:
        raise ImageError(f"tty-info.img: {info.id}: {error}") from error


def _set_size(fd: int, info: m.tty_info_entry) -> None:
    size = info.winsize
    wanted = _winsize.pack(size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel)
    found = fcntl.ioctl(fd, TIOCGWINSZ, bytes(_winsize.size))
    if found == wanted:
        return
    try:
        fcntl.ioctl(fd, TIOCSWINSZ, wanted)
    except OSError as error:
        # A virtual terminal has a screen, and that of another machine or boot another size (drivers/tty/vt/vt.c).
        if info.type != m.TtyType.VT or error.errno != errno.EINVAL:
            raise
        rows, columns, *_ = _winsize.unpack(found)
        log.warn(
            f"the terminal {os.major(info.rdev)}:{os.minor(info.rdev)} had {size.ws_row} lines of {size.ws_col} "
            f"characters; its screen here stays at {rows} of {columns}"
        )


def restore_owner(fd: int, info: m.tty_info_entry, idmaps: IdMaps) -> None:
    """Owner and group of the device node behind *fd*."""
    if info.HasField("uid") and info.HasField("gid"):
        found = os.fstat(fd)
        owner = idmaps.outside(info.uid, info.gid)
        if (found.st_uid, found.st_gid) != owner:
            os.fchown(fd, *owner)


def _pack(entry: m.termios_entry) -> bytes:
    if len(entry.c_cc) < _N_CC:
        raise ImageError("tty-info.img: control characters are missing")
    characters = _words_of_cc.pack(*entry.c_cc[:_N_CC])[:_N_CC]
    return _termios.pack(entry.c_iflag, entry.c_oflag, entry.c_cflag, entry.c_lflag, entry.c_line & 0xFF, characters)
