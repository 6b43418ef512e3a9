"""A link between the two sides of a migration that does harm when it sees a certain message.

    relay.py MESSAGE DELAY VICTIM COMMAND...

It is the command that leads to another host, and hands on what the two sides say.  When it sees MESSAGE (``end``: that
of data which go the same way) it waits so many seconds, before it has handed it on if the number is negative, and then
VICTIM is at its end: ``source`` and ``destination`` are killed, ``host`` with all that runs there, ``link`` is cut,
``both`` are the source and the link at once, and of ``silence`` the destination is stopped until the source has gone.
``runc`` is killed where it makes a checkpoint, on the side that we are on.  Any other VICTIM is a command that does the
harm, while what is said goes on.
"""

import os
import selectors
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress

_HEAD = struct.Struct(">cI")
_PATIENCE_S = 3.0
#: Whoever has started us, whoever our parent is later.
_SOURCE = os.pidfd_open(os.getppid())


class Direction:
    """What goes one way: bytes, of which the messages are looked at."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader, self.writer = reader, writer
        self._seen = b""

    def frames(self, data: bytes) -> list[bytes]:
        """What has come so far, frame by frame."""
        self._seen += data
        found = []
        while len(self._seen) >= _HEAD.size:
            end = _HEAD.size + _HEAD.unpack_from(self._seen)[1]
            if len(self._seen) < end:
                break
            found.append(self._seen[:end])
            self._seen = self._seen[end:]
        return found


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _receivers(root: int) -> list[int]:
    """The processes below *root* that receive; those with a session of their own outlive them, and are left to."""
    found, todo = [], [root]
    for pid in todo:
        try:
            with open(f"/proc/{pid}/task/{pid}/children") as stream:
                todo += [int(word) for word in stream.read().split()]
            with open(f"/proc/{pid}/cmdline", "rb") as line:
                words = line.read().split(b"\0")
            is_own = os.getsid(pid) != os.getsid(root)
        except OSError:
            continue
        if b"receive" in words and b"-m" in words and not is_own:
            found.append(pid)
    return found


def _checkpointing() -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdigit() and os.readlink(f"/proc/{name}/exe").endswith("/runc"):
                with open(f"/proc/{name}/cmdline", "rb") as line:
                    found += [int(name)] if b"checkpoint" in line.read().split(b"\0") else []
    return found


def main() -> None:
    """Hand on until one side is gone."""
    message, delay, victim = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    with subprocess.Popen(sys.argv[4:], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as inner:
        assert inner.stdin is not None and inner.stdout is not None
        ways = [Direction(0, inner.stdin.fileno()), Direction(inner.stdout.fileno(), 1)]
        selector = selectors.DefaultSelector()
        for way in ways:
            selector.register(way.reader, selectors.EVENT_READ, way)
        wanted = b'{"is":"%s"' % message.encode()
        while True:
            for key, _ in selector.select():
                way = key.data
                data = os.read(way.reader, 1 << 16)
                if not data:
                    for pid in _receivers(inner.pid) if victim == "silence" else ():
                        os.kill(pid, signal.SIGCONT)
                    _end(inner)
                    os._exit(0)
                for frame in way.frames(data):
                    is_it = frame.startswith(b"M") and frame[_HEAD.size :].startswith(wanted)
                    is_it = is_it or (message == "end" and frame.startswith(b"E"))
                    if is_it and delay < 0:
                        harm(inner.pid, victim, -delay)
                    try:
                        _write(way.writer, frame)
                    except BrokenPipeError:
                        os._exit(0)
                    if is_it and delay >= 0 and "/" in victim:
                        threading.Thread(target=harm, args=(inner.pid, victim, delay)).start()
                    elif is_it and delay >= 0:
                        harm(inner.pid, victim, delay)


def _end(inner: "subprocess.Popen[bytes]") -> None:
    """As ssh does when its input ends: what was handed on still comes to the other side, which then hears of that."""
    assert inner.stdin is not None
    with suppress(OSError):
        inner.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        inner.wait(_PATIENCE_S)
    inner.kill()


def harm(inner: int, victim: str, delay_s: float) -> None:
    """After the delay, do what is to be done."""
    time.sleep(delay_s)
    if victim in ("source", "both"):
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(_SOURCE, signal.SIGKILL)
        if victim == "both":
            os._exit(0)
    elif victim == "runc":
        for pid in _checkpointing():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    elif victim in ("destination", "silence"):
        for pid in _receivers(inner):
            os.kill(pid, signal.SIGKILL if victim == "destination" else signal.SIGSTOP)
    elif victim == "host":
        # As ``harness.hosts`` leads there: nsenter -t PID, of the first process of a pid namespace.
        with open(f"/proc/{inner}/cmdline", "rb") as line:
            os.kill(int(line.read().split(b"\0")[2]), signal.SIGKILL)
    elif victim == "link":
        os._exit(0)
    else:
        subprocess.run([victim], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    main()
