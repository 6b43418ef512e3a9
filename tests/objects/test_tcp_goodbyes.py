"""What a program has sent before it closed its connection gets there, though it and its network end with the dump."""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from harness.events import time_limit_s
from harness.neighbour import joined_namespace
from harness.network import silence
from harness.skips import missing
from harness.streams import InNamespace
from torpor.base.ids import Pid
from torpor.kernel.namespaces import network_of
from torpor.kernel.sock_diag import read_goodbyes, read_inet
from torpor.kernel.uapi.inet import IPPROTO_MPTCP

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]

_LARGE = 1_500_000
_ESTABLISHED = 1
_SERVER = """
import socket, sys
listener = socket.create_server((sys.argv[1], 0), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print("port", listener.getsockname()[1], flush=True)
while True:
    peer, _ = listener.accept()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_000_000)
    peer.sendall(bytes(int(peer.recv(10))))
    peer.close()
    print("closed", flush=True)
"""


class _Server(InNamespace):
    """Answers with as many bytes as it is asked for, and closes."""

    def __init__(self, keeper: int, hooks: "_Hooks | None" = None, *options: str) -> None:
        super().__init__(keeper)
        self._keeper = keeper
        script = ("--action-script", str(hooks.script)) if hooks else ()
        self.dump_options = (*self.dump_options, *script, *options)

    def listen(self, address: str = "10.213.7.2", prefix: object = ()) -> None:
        self.start(["nsenter", "-n", "-t", str(self._keeper), sys.executable, "-c", _SERVER, address])
        self.wait_log(r"port \d+\n")
        self.address = (address, self.port)

    def ask(self, n_bytes: int) -> socket.socket:
        client = socket.create_connection(self.address, time_limit_s(20))
        client.sendall(str(n_bytes).encode())
        return client


class _Hooks:
    """A dump's hooks wait for a thread of the test, which does what there is to do at each."""

    def __init__(self, base: Path, **at: Callable[[], None]) -> None:
        self.script, self._asked, self._answered = base / "hook", base / "asked", base / "answered"
        for fifo in (self._asked, self._answered):
            os.mkfifo(fifo)
        names = "|".join(each.replace("_", "-") for each in at)
        line = f'case "$CRTOOLS_SCRIPT_ACTION" in {names}) echo >{self._asked}; read _ <{self._answered};; esac'
        self.script.write_text(f"#!/bin/sh\n{line}\n")
        self.script.chmod(0o755)
        self._errors: list[Exception] = []
        self._thread = threading.Thread(target=self._work, args=list(at.values()), daemon=True)
        self._thread.start()

    def _work(self, *steps: Callable[[], None]) -> None:
        for step in steps:
            self._asked.read_text()
            try:
                step()
            except Exception as error:
                self._errors.append(error)
            self._answered.write_text("\n")

    def finish(self) -> None:
        """Each has come, and gone well."""
        self._thread.join(time_limit_s(20))
        assert not self._thread.is_alive()
        if self._errors:
            raise self._errors[0]


def _hurry() -> None:
    """Whoever reads is not kept waiting by a busy machine: a dump takes that for a client that does not read."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def _read_all(client: socket.socket) -> int:
    n_bytes = 0
    while data := client.recv(1 << 16):
        n_bytes += len(data)
    return n_bytes


@pytest.mark.parametrize("method", ["nftables", "iptables"])
@pytest.mark.parametrize("address", ["10.213.7.2", "fd13:7::2"])
def test_one_that_came_just_before_the_lock_is_answered(tmp_path: Path, address: str, method: str) -> None:
    """The server runs on to accept it: what it says and closes then is heard, before anything has ended."""
    late: list[socket.socket] = []
    got: list[int] = []
    with joined_namespace() as keeper:
        hooks = _Hooks(
            tmp_path,
            network_lock=lambda: late.append(server.ask(1000)),
            post_dump=lambda: got.append(_read_all(late[0])),
        )
        with _Server(keeper, hooks, "--network-lock", method) as server:
            server.listen(address)
            server.sleep_and_wake()
            hooks.finish()
            assert got == [1000]
            late[0].close()
            with server.ask(10) as client:
                assert _read_all(client) == 10


def test_a_long_answer_is_delivered_while_all_is_stopped(tmp_path: Path) -> None:
    """The client reads when the server has been stopped already, and a part is still to be sent."""
    got: list[int] = []
    with joined_namespace() as keeper:

        def begin() -> None:
            first = client.recv(1)
            threads.append(threading.Thread(target=read_on, args=[first]))
            threads[0].start()

        def read_on(first: bytes) -> None:
            _hurry()
            got.append(len(first) + _read_all(client))

        threads: list[threading.Thread] = []
        hooks = _Hooks(tmp_path, network_lock=begin, post_dump=lambda: threads[0].join(time_limit_s(20)))
        with _Server(keeper, hooks, "--network-lock", "nftables") as server:
            server.listen()
            with server.ask(_LARGE) as client:
                server.wait_log("closed\n")
                server.sleep_and_wake()
                hooks.finish()
            assert got == [_LARGE]
            assert "closed connections still deliver" in _log(server)
            assert "are lost" not in _log(server)


@pytest.mark.parametrize("option", ["--tcp-established", "--tcp-close"])
def test_all_has_gone_before_the_dump_is_whole(tmp_path: Path, option: str) -> None:
    """Also where other connections are not to be carried."""
    got: list[int] = []
    left: list[int] = []
    with joined_namespace() as keeper, _Server(keeper) as server:

        def read() -> None:
            _hurry()
            while data := client.recv(1 << 15):
                got.append(len(data))
                reads.set()
                time.sleep(0.005)

        def begin() -> None:
            reader.start()
            reads.wait(time_limit_s(20))

        def look() -> None:
            with network_of(Pid(keeper)):
                left.append(len(read_goodbyes()))

        reads, reader = threading.Event(), threading.Thread(target=read)
        hooks = _Hooks(tmp_path, pre_dump=begin, post_dump=look)
        server.dump_options = (option, *server.dump_options[1:], "--action-script", str(hooks.script))
        server.listen()
        with server.ask(_LARGE) as client:
            server.wait_log("closed\n")
            server.sleep_and_wake()
            hooks.finish()
            reader.join(time_limit_s(20))
        assert left == [0]
        assert sum(got) == _LARGE


def test_a_client_that_never_reads_is_not_waited_for() -> None:
    """It is told; and what follows is served."""
    with joined_namespace() as keeper, _Server(keeper) as server:
        server.listen()
        with server.ask(_LARGE):
            server.wait_log("closed\n")
            server.sleep_and_wake()
        assert "1 TCP connections that programs have closed still had" in _log(server)
        assert f"the first from 10.213.7.2:{server.port} to 10.213.7.1:" in _log(server)
        with server.ask(10) as client:
            assert _read_all(client) == 10


def _log(server: InNamespace) -> str:
    return (server.images / "dump.log").read_text()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_who_still_delivers(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:
        near = socket.create_connection(listener.getsockname()[:2])
        far, _ = listener.accept()
    ends = [(socket.inet_pton(family, address), each.getsockname()[1]) for each in (near, far)]
    with far, silence():
        assert not read_goodbyes()
        near.sendall(b"never heard")
        assert not read_goodbyes()
        near.close()
        (left,) = read_goodbyes()
    assert [left.here, left.there] == ends
    assert left.n_left == len(b"never heard") + 1
    assert left.rtt_us > 0


def test_mptcp_does_not_say_what_it_still_delivers() -> None:
    """Why its goodbyes are not waited for: its subflow looks the same before and after all has been taken."""
    try:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    except OSError:
        missing("MPTCP in the kernel")
    with listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        near = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
        near.connect(listener.getsockname())
        far, _ = listener.accept()
        port = far.getsockname()[1]
    with near:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_000_000)
        far.sendall(bytes(_LARGE))
        far.close()
        assert not read_goodbyes()
        before = _states(port)
        assert _read_all(near) == _LARGE
        assert _states(port) == before == {_ESTABLISHED}
        assert not read_goodbyes()


def _states(port: int) -> set[int]:
    return {each.state for each in read_inet(socket.AF_INET, socket.IPPROTO_TCP, port=port).values()}
