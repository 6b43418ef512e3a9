"""A TCP connection on which both ends talk without a pause, each checking every byte that it gets by its place.

The far end is a process of its own (``start``), to be checkpointed; the near end is a thread of the test.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Sequence

from harness import engine
from harness.events import ProcessWatch, time_limit_s
from harness.program import Program

#: Both ends run this. The pattern's length is a prime, so that bytes lost or doubled show whatever their number.
PUMP = """
import random, select, socket
PATTERN = random.Random(1).randbytes(65521) * 3
N = 65521
def pump(peer, finish):
    "Talk until *finish* says so and the other end has; the bytes sent and received."
    peer.setblocking(False)
    sent = received = 0
    is_open = True
    while True:
        readable, writable, _ = select.select([peer], [peer] if is_open else [], [], 30)
        assert readable or writable, f"silence after {received} bytes"
        if readable:
            data = peer.recv(20000)
            if not data and not is_open:
                return sent, received
            if not data:
                finish = lambda: True
            at = received % N
            assert data == PATTERN[at:at + len(data)], f"wrong bytes behind {received}"
            received += len(data)
        if is_open and writable:
            if finish():
                peer.shutdown(socket.SHUT_WR)
                is_open = False
                continue
            at = sent % N
            sent += peer.send(PATTERN[at:at + random.choice((1, 100, 9000, 60000))])
        # An instant's rest, so that a test may share its machine.
        select.select([], [], [], 0.001)
"""
_FAR = (
    PUMP
    + """
import sys
address, family = sys.argv[1], socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
listener = socket.socket(family)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((address, 0))
listener.listen()
print("port", listener.getsockname()[1], flush=True)
peer, _ = listener.accept()
listener.close()
try:
    print("counts", *pump(peer, lambda: False), flush=True)
except BaseException as error:
    print("failed", repr(error), flush=True)
"""
)


class FarEnd(Program):
    """The far end, as a program to be checkpointed."""

    dump_options: Sequence[str] = ("--tcp-established",)
    restore_options = ("--tcp-established",)

    def listen(self, address: str, prefix: Sequence[str] = ()) -> None:
        """Start it, by the command *prefix*."""
        self.start([*prefix, sys.executable, "-c", _FAR, address])
        self.wait_log(r"port \d+\n")

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.log().split()[1])

    def reap(self) -> None:
        """It is dead: free its pid."""
        assert self.root is not None
        self._reap([self.root])

    def counts(self) -> tuple[int, int]:
        """Bytes sent and received, when it has ended."""
        self.wait_log(r"counts .*\n|failed .*\n", timeout_s=time_limit_s(60))
        last = self.log().splitlines()[-1]
        assert last.startswith("counts"), last
        sent, received = last.split()[1:]
        return int(sent), int(received)


class InNamespace(FarEnd):
    """In a network namespace that somebody else keeps, as container engines do."""

    def __init__(self, keeper: int) -> None:
        super().__init__()
        self._netns = os.open(f"/proc/{keeper}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.dump_options = ("--tcp-established", "--external", f"net[{os.fstat(self._netns).st_ino}]:kept")

    def restore(self) -> None:
        options = ["--tcp-established", "--inherit-fd", f"fd[{self._netns}]:kept"]
        pid = engine.restore(self.images, options=options, pass_fds=[self._netns])
        if self.root is not None:
            self.root.close()
        self.root = ProcessWatch(pid)

    def close(self) -> None:
        os.close(self._netns)
        super().close()


class NearEnd:
    """Our end: a thread that talks until ``finish``."""

    def __init__(self, address: str, port: int) -> None:
        self._socket = _connect(address, port)
        self._end = threading.Event()
        self._counts: tuple[int, int] | None = None
        self._error: BaseException | None = None
        scope: dict[str, object] = {}
        # The far end runs the very same.
        exec(PUMP, scope)
        self._pump = scope["pump"]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self._socket:
                self._counts = self._pump(self._socket, self._end.is_set)  # type: ignore[operator]
        except BaseException as error:
            self._error = error

    @property
    def is_talking(self) -> bool:
        """Whether nothing has gone wrong so far; what has is raised."""
        if self._error is not None:
            raise self._error
        return self._thread.is_alive()

    def finish(self) -> tuple[int, int]:
        """Hang up; bytes sent and received."""
        self._end.set()
        self._thread.join(time_limit_s(60))
        if self._error is not None:
            raise self._error
        assert self._counts is not None, "it does not come to an end"
        return self._counts


def _connect(address: str, port: int) -> socket.socket:
    """Connect as soon as somebody listens there."""
    deadline = time.monotonic() + time_limit_s(20)
    while True:
        try:
            return socket.create_connection((address, port), time_limit_s(20))
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
