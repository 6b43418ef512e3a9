"""Who a client is: the one that connected, where it is, and what of its descriptors it may show us."""

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from torpor.base.errors import NotPermittedError
from torpor.images import messages as m
from torpor.rpc import peer as peers
from torpor.rpc.channel import Channel, ClientError

_CONNECT = "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(sys.argv[1])"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def test_a_client_of_ours_may_what_we_may(ends: tuple[socket.socket, socket.socket]) -> None:
    found = peers.identify(ends[0].fileno())
    with found.pidfd:
        assert (found.pid, found.uid, found.gid) == (os.getpid(), os.geteuid(), os.getegid())
        assert found.is_ours and found.lives()
        assert ends[0].fileno() >= 0, "the connection stays the caller's"


def test_a_client_that_has_ended_is_not_served(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        subprocess.run([sys.executable, "-S", "-c", _CONNECT, str(tmp_path / "socket")], check=True)
        with server.accept()[0] as connection, pytest.raises(NotPermittedError, match=r"has ended|cannot be looked at"):
            peers.identify(connection.fileno())


def test_a_client_elsewhere_is_not_served(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = itertools.count()
    monkeypatch.setattr(peers, "_identity", lambda pid, link: (0, next(numbers)))
    with pytest.raises(NotPermittedError, match=r"another place \(mnt, pid, user, root directory\)"):
        peers.identify(ends[0].fileno())


def test_only_directories_of_the_clients_are_opened(
    ends: tuple[socket.socket, socket.socket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = peers.identify(ends[0].fileno())
    (tmp_path / "file").touch()
    directory, file = os.open(tmp_path, os.O_PATH), os.open(tmp_path / "file", os.O_RDONLY)
    channel = Channel(os.dup(ends[0].fileno()), found)
    try:
        assert channel.peer_pid() == os.getpid()
        assert os.stat(channel.place_of(directory)).st_ino == tmp_path.stat().st_ino
        for number in (file, 987654):
            with pytest.raises(NotPermittedError, match="is no directory"):
                channel.place_of(number)
        monkeypatch.setattr(peers.Peer, "lives", lambda peer: False)
        with pytest.raises(NotPermittedError, match="has ended"):
            channel.place_of(directory)
    finally:
        channel.close()
        os.close(directory)
        os.close(file)


def test_a_request_that_is_too_long_is_not_read(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torpor.rpc.channel._LONGEST", 8)
    channel = Channel(os.dup(ends[0].fileno()))
    try:
        ends[1].send(m.criu_req(type=m.criu_req_type.DUMP, pid=1 << 20, notify_success=True).SerializeToString() * 3)
        with pytest.raises(ClientError, match="too long"):
            channel.receive()
    finally:
        channel.close()


def test_nothing_is_left_to_be_imported_by_a_worker() -> None:
    """The client may not be able to read where torpor and what it uses are installed."""
    code = (
        "import sys; from torpor.rpc.peer import load_everything; load_everything(); sys.path.clear(); "
        "from torpor.images import manifest; print(manifest.load_module('xxhash').__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "xxhash\n", done.stderr
