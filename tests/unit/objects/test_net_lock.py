"""What a dump has locked of the network is undone where it is there, and nothing is tried where it is not."""

import errno
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from harness.events import time_limit_s
from harness.skips import missing
from torpor.base import log
from torpor.base.errors import KernelError, RefusedError
from torpor.base.fds import OwnedFd
from torpor.kernel import nftables
from torpor.kernel.sockets import Socket
from torpor.objects.files.socket import net_lock
from torpor.tracee.caretaker import Caretaker

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]
_RUN_ID = "3f1c2f1e-4c1e-4b49-9a51-6d1c1a4f0b7e"
#: How long something is tried that is not to come about.
_SOON_S = 0.3
_Commit = Callable[[Socket, Sequence[bytes]], None]


@pytest.fixture
def connection() -> Iterator[Socket]:
    try:
        net_lock.check("nftables")
    except RefusedError:
        missing("nftables (CONFIG_NF_TABLES)")
    with nftables.open_socket() as made:
        yield made


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[bytes]]:
    """What has been sent to be changed."""
    found: list[Sequence[bytes]] = []
    commit: _Commit = nftables.commit

    def told(connection: Socket, messages: Sequence[bytes]) -> None:
        found.append(messages)
        commit(connection, messages)

    monkeypatch.setattr(nftables, "commit", told)
    return found


def test_what_is_not_there_is_not_tried(connection: Socket, committed: list[Sequence[bytes]]) -> None:
    """The kernel would take back a transaction, and wait for that while the tree is stopped."""
    left = net_lock.Left(_RUN_ID, net_lock.NFTABLES, None)
    left.let_through()
    left.close()
    assert not committed


@pytest.mark.parametrize("number", [0, 1])
def test_what_is_there_goes(number: int, connection: Socket, committed: list[Sequence[bytes]]) -> None:
    """Of ours, or of CRIU's, which has another name."""
    name = net_lock._table_names(_RUN_ID)[number]
    nftables.commit(connection, [nftables.new_table(name)])
    left = net_lock.Left(_RUN_ID, net_lock.NFTABLES, None)
    left.let_through()
    assert not nftables.has_table(connection, name)
    left.let_through()
    left.close()
    assert len(committed) == 2


def test_what_cannot_be_asked_for_is_said(connection: Socket, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def fail(connection: Socket, table: str) -> bool:
        raise KernelError("nftables", errno.EPERM)

    left = net_lock.Left(_RUN_ID, net_lock.NFTABLES, None)
    monkeypatch.setattr(nftables, "has_table", fail)
    monkeypatch.setattr(log, "warn", said.append)
    left.let_through()
    left.close()
    assert len(said) == 2 and all("the network cannot be unlocked" in each for each in said)


@pytest.mark.parametrize("holds_all", [False, True])
@pytest.mark.parametrize("method", ["nftables", "iptables"])
@pytest.mark.parametrize("was_ajar", [True, False])
def test_one_that_is_ajar_keeps_out_new_connections(method: str, was_ajar: bool, holds_all: bool) -> None:
    """Whatever it was before; shut, it keeps back those that there are, and undone nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        with socket.create_connection(listener.getsockname()) as near, listener.accept()[0] as far:
            far.settimeout(_SOON_S)

            def come() -> None:
                socket.create_connection(listener.getsockname(), _SOON_S).close()

            def talk() -> None:
                near.sendall(b"x")
                assert far.recv(10)

            keeper = Caretaker()
            stack.callback(keeper.dismiss)
            lock = net_lock.NetLock(_RUN_ID, method)
            lock._holds_all = holds_all
            lock.lock(OwnedFd(os.open("/proc/self/ns/net", os.O_RDONLY)), None, lambda: keeper, is_ajar=was_ajar)
            if not was_ajar:
                lock.shut(is_ajar=True)
            talk()
            with pytest.raises(TimeoutError):
                come()
            talk()
            lock.shut()
            with pytest.raises(TimeoutError):
                talk()
            lock.let_through()
            lock.close()
            far.settimeout(time_limit_s(20))
            assert far.recv(10)
            come()
