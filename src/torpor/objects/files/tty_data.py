"""What lies in a pty between its two ends.

Kernel view
    Nothing lets one look at it in place: it is read and put back at once, so that the pair is as before whatever comes
    next.  TIOCSTI puts a byte into an end's input queue as if it had come over the line; the terminal is set to take
    every byte as it is meanwhile.  In canonical mode read(2) gives whole lines, then the rest of the line being typed
    can be read with ICANON off.
Image
    ``tty_data_entry`` of an end: what that end would read.  An end of file (^D) on an empty or unfinished line is there
    as the terminal's VEOF character.
Restore
    As it is put back at the dump: TIOCSTI, and writing at the other end what does not fit.
Limits
    Input of more than a line discipline's buffer (4095 bytes) is put back by writing at the other end, and is then
    subject to the terminal's settings.  A pending status byte of packet mode is lost.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct

from torpor.kernel.uapi.ioctls import FIONREAD, TIOCGPKT, TIOCGPTPEER, TIOCPKT, TIOCSTI
from torpor.kernel.uapi.termbits import ICANON, VEOF, VEOL, VEOL2, VMIN, VTIME
from torpor.objects.files import tty_params

_ROOM = 4000
_CHUNK = 4096
_LIMIT = 1 << 20
# How long the kernel's worker gets to move on what did not fit into the buffer.
_REFILL_MS = 20


def open_slave(master: int, flags: int) -> int:
    """The other end of the pair, whatever its name is in any mount namespace.

    Here the kernel keeps O_CLOEXEC among the flags of the description as well, where it would stay: it comes later.
    """
    fd = fcntl.ioctl(master, TIOCGPTPEER, flags & ~os.O_CLOEXEC | os.O_NOCTTY)
    os.set_inheritable(fd, False)
    return fd


def peek_output(master: int, slave: int | None) -> bytes:
    """What the master would read; left as it was."""
    if not n_readable(master):
        return b""
    packet_mode = tty_params.read_int(master, TIOCGPKT)
    if packet_mode:
        tty_params.write_int(master, TIOCPKT, 0)
    try:
        data = bytearray()
        while (n_bytes := _wait_readable(master, len(data))) and len(data) < _LIMIT:
            data += os.read(master, n_bytes)
        put_output(master, slave, bytes(data))
    finally:
        if packet_mode:
            tty_params.write_int(master, TIOCPKT, 1)
    return bytes(data)


def n_readable(fd: int) -> int:
    """Bytes (of whole lines, in canonical mode) that wait to be read."""
    return int(struct.unpack("i", fcntl.ioctl(fd, FIONREAD, bytes(4)))[0])


def _wait_readable(fd: int, n_read: int) -> int:
    if n_read >= _ROOM:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        poller.poll(_REFILL_MS)
    return n_readable(fd)


def peek_input(master: int, slave: int) -> bytes:
    """What the slave would read; left as it was.  *slave* is a description of our own that does not block."""
    settings = tty_params.read_termios(slave)
    is_canonical = bool(tty_params.lflag_of(settings) & ICANON)
    data = bytearray()
    if is_canonical:
        _read_lines(slave, tty_params.cc_of(settings, VEOF), data)
    elif not n_readable(slave):
        return b""
    raw = tty_params.changed(settings, iflag=0, oflag=0, lflag=0, cc={})
    tty_params.write_termios(slave, raw)
    try:
        while len(data) < _LIMIT and (more := _read_now(slave, len(data))):
            data += more
    finally:
        tty_params.write_termios(slave, settings)
    put_input(master, slave, bytes(data))
    return bytes(data)


def _read_lines(slave: int, eof: int, data: bytearray) -> None:
    """Whole lines; *eof* stands for an end of file that ended one."""
    poller = select.poll()
    poller.register(slave, select.POLLIN)
    while len(data) < _LIMIT and any(events & select.POLLIN for _, events in poller.poll(0)):
        line = os.read(slave, _CHUNK)
        data += line
        if not line.endswith(b"\n"):
            data.append(eof)


def _read_now(slave: int, n_read: int) -> bytes:
    if n_read >= _ROOM:
        _wait_readable(slave, n_read)
    return os.read(slave, _CHUNK)


def put_output(master: int, slave: int | None, data: bytes) -> None:
    """Let the master read *data* next."""
    rest = _insert(master, data)
    if rest and slave is not None:
        settings = tty_params.read_termios(slave)
        tty_params.write_termios(
            slave,
            tty_params.changed(settings, iflag=0, oflag=0, lflag=tty_params.lflag_of(settings) & ICANON, cc={}),
        )
        try:
            os.write(slave, rest)
        finally:
            tty_params.write_termios(slave, settings)


def put_input(master: int, slave: int, data: bytes) -> None:
    """Let the slave read *data* next: nothing is echoed, no character but VEOF is special."""
    if not data:
        return
    settings = tty_params.read_termios(slave)
    kept = {index: tty_params.cc_of(settings, index) for index in (VEOF, VTIME, VMIN, VEOL, VEOL2)}
    quiet = tty_params.changed(settings, iflag=0, oflag=0, lflag=tty_params.lflag_of(settings) & ICANON, cc=kept)
    tty_params.write_termios(slave, quiet)
    try:
        rest = _insert(slave, data)
    finally:
        tty_params.write_termios(slave, settings)
    if rest:
        os.set_blocking(master, False)
        os.write(master, rest)


def _insert(fd: int, data: bytes) -> bytes:
    """Put bytes into the input queue of *fd*; what did not go in."""
    for index in range(min(len(data), _ROOM)):
        try:
            fcntl.ioctl(fd, TIOCSTI, data[index : index + 1])
        except PermissionError:
            return data[index:]
    return data[_ROOM:]
