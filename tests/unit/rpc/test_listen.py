"""Workers of ``criu service``, and how they are counted."""

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from torpor.rpc import listen
from torpor.rpc.listen import Workers


@pytest.fixture
def of_the_service() -> Iterator[None]:
    """As the service has it: the kernel reaps its children."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("of_the_service")
def test_one_that_has_ended_is_still_itself_when_it_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[int, int]] = []
    open_pidfd = os.pidfd_open

    def late(pid: int, flags: int = 0) -> int:
        """After its end, which leaves its pid to others unless we have yet to reap it."""
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        opened.append((pid, open_pidfd(pid, flags)))
        return opened[-1][1]

    monkeypatch.setattr(os, "pidfd_open", late)
    workers = Workers()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, socket.socket(socket.AF_UNIX) as server:
        listen._employ(ours.detach(), 4711, server, workers, lambda _: True)
        assert workers._all == {opened[0][1]: 4711}
        assert theirs.recv(1) == b""
        workers.wait(None, 60)
    assert workers._all == {}
    with pytest.raises(ChildProcessError):
        os.waitpid(opened[0][0], os.WNOHANG)
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
