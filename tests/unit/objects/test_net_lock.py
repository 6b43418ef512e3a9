"""What a dump has locked of the network is undone where it is there, and nothing is tried where it is not."""

import errno
from collections.abc import Callable, Iterator, Sequence

import pytest

from harness.skips import missing
from torpor.base import log
from torpor.base.errors import KernelError, RefusedError
from torpor.kernel import nftables
from torpor.kernel.sockets import Socket
from torpor.objects.files.socket import net_lock

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]
_RUN_ID = "3f1c2f1e-4c1e-4b49-9a51-6d1c1a4f0b7e"
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
