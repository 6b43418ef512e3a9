"""Connections that wait to be accepted: a dump comes when there are none, and says so where they never end."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from harness import engine
from harness.events import time_limit_s
from harness.neighbour import joined_namespace
from harness.program import Program
from harness.rounds import rounds
from harness.skips import need_tracking
from harness.streams import InNamespace
from torpor.base.errors import TargetGoneError
from torpor.base.ids import Pid
from torpor.engine.dump import run, stopping
from torpor.engine.dump.session import DumpSession
from torpor.engine.options import DumpOptions
from torpor.kernel import packets
from torpor.kernel.sockets import Socket
from torpor.objects.files.socket import left_clients
from torpor.objects.memory.tracking import Tracker
from torpor.objects.policy import NetworkPolicy, Policies
from torpor.tracee.tree import FrozenTree

pytestmark = pytest.mark.root

N_DUMPS = 5

_BUSY = """
import socket, time
listener = socket.create_server(("127.0.0.1", 0), backlog=100)
print("port", listener.getsockname()[1], flush=True)
while True:
    peer, _ = listener.accept()
    time.sleep(WORK_S)
    peer.sendall(b"x")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    peer.close()
"""
_FICKLE = """
import socket
print("port", 0, flush=True)
while True:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as near:
            with listener.accept()[0] as far:
                far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
"""
_GREETER = """
import socket, time
listener = socket.create_server(("10.213.7.2", 0), backlog=100)
print("port", listener.getsockname()[1], flush=True)
peers = []
while True:
    peers.append(listener.accept()[0])
    peers[-1].sendall(b"welcome")
    print("accepted", peers[-1].getpeername()[1], flush=True)
"""
_ASKER = """
import socket, sys, time
while True:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as peer:
        peer.recv(1)
        time.sleep(0.004)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    print("asked", flush=True)
    time.sleep(0.004)
"""
#: Takes longer over each than it takes several clients to come again.
_SATURATED = """
import socket, sys, time
listener = socket.create_server((sys.argv[1], 0), backlog=100)
print("port", listener.getsockname()[1], flush=True)
while True:
    with listener.accept()[0] as peer:
        time.sleep(0.005)
        peer.sendall(peer.recv(10))
"""
#: Hardly ever is a connection among its descriptors.
_BRISK = _SATURATED.replace(
    """    with listener.accept()[0] as peer:
        time.sleep(0.005)
""",
    """    time.sleep(0.005)
    with listener.accept()[0] as peer:
""",
)
_HALF_DEAF = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
listener = socket.create_server((sys.argv[1], 0), family=family, dualstack_ipv6=sys.argv[1] == "::")
print("port", listener.getsockname()[1], flush=True)
early, _ = listener.accept()
print("accepted", flush=True)
print("early", early.recv(10), flush=True)
early.recv(1)
"""
_DEAF = """
import signal, socket
listener = socket.create_server(("127.0.0.1", 0), backlog=100)
print("port", listener.getsockname()[1], flush=True)
signal.sigwait([signal.SIGUSR1])
peer, (_, port) = listener.accept()
print("accepted", port, flush=True)
print("read", peer.recv(10).decode(), flush=True)
signal.pause()
"""


def _start(program: Program, text: str) -> int:
    program.start([sys.executable, "-c", f"import signal; signal.pthread_sigmask(0, [signal.SIGUSR1])\n{text}"])
    program.wait_log(r"port \d+\n")
    return int(program.log().split()[1])


def test_one_that_opens_and_closes_listeners(tmp_path: Path) -> None:
    """Those that it has at the moment of the dump count, not those that it had before."""
    with Program() as program:
        _start(program, _FICKLE)
        for _ in range(rounds(10, 200)):
            engine.dump(program.pid, tmp_path, leave_running=True, options=["--tcp-established"])


@pytest.mark.parametrize(
    ("work_s", "options"), [(0, ["--tcp-established"]), (0.004, [])], ids=["without a pause", "now and then"]
)
def test_a_busy_server(tmp_path: Path, work_s: float, options: list[str]) -> None:
    """One that accepts and ends connections can be dumped at any time; between two, if they are not to be carried."""
    end = threading.Event()

    def talk(port: int) -> None:
        while not end.is_set():
            with suppress(ConnectionResetError), socket.create_connection(("127.0.0.1", port)) as peer:
                peer.recv(10)
            end.wait(work_s)

    with Program() as program:
        port = _start(program, _BUSY.replace("WORK_S", str(work_s)))
        thread = threading.Thread(target=talk, args=(port,))
        thread.start()
        try:
            for _ in range(N_DUMPS):
                engine.dump(program.pid, tmp_path, leave_running=True, options=options)
        finally:
            end.set()
            thread.join()


def test_one_that_asks_others(tmp_path: Path) -> None:
    """Its own connections come and go as well."""
    with socket.create_server(("127.0.0.1", 0)) as listener, Program() as program:

        def answer() -> None:
            with suppress(OSError):  # the listener is closed
                while True:
                    with listener.accept()[0] as peer, suppress(ConnectionResetError):
                        peer.sendall(b"x")
                        peer.recv(1)

        thread = threading.Thread(target=answer)
        thread.start()
        program.start([sys.executable, "-c", _ASKER, str(listener.getsockname()[1])])
        program.wait_log("asked")
        for _ in range(N_DUMPS):
            engine.dump(program.pid, tmp_path, leave_running=True)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_round_of_memory_waits_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are the business of the dump that follows: the tree is stopped once."""
    need_tracking()
    stops: list[FrozenTree] = []
    stop = stopping._stop

    def counted(session: DumpSession) -> FrozenTree:
        stops.append(stop(session))
        return stops[-1]

    monkeypatch.setattr(stopping, "_stop", counted)
    with Program() as program, Tracker() as tracker:
        port = _start(program, _DEAF)
        options = DumpOptions(tracker=tracker, owns_directory=True)
        run.pre_dump(program.pid, tmp_path / "1", options)
        with socket.create_connection(("127.0.0.1", port)) as peer:
            run.pre_dump(program.pid, tmp_path / "2", options)  # it waits to be accepted
            os.kill(program.pid, signal.SIGUSR1)
            program.wait_log(f"accepted {peer.getsockname()[1]}\n")
            run.pre_dump(program.pid, tmp_path / "3", options)
            assert len(stops) == 3
            peer.sendall(b"bye")
            program.wait_log("read bye\n")


def test_a_connection_that_stays(tmp_path: Path) -> None:
    """It is waited for in vain, while the tree runs; then refused."""
    with Program() as program:
        port = _start(program, _DEAF)
        with socket.create_connection(("127.0.0.1", port)) as peer:
            os.kill(program.pid, signal.SIGUSR1)
            program.wait_log(f"accepted {peer.getsockname()[1]}\n")
            with pytest.raises(engine.EngineError) as caught:
                engine.dump(program.pid, tmp_path)
            assert "use --tcp-close to have it closed, or --tcp-established to carry it" in caught.value.log
            peer.sendall(b"bye")
            program.wait_log("read bye\n")


@pytest.mark.usefixtures("own_network")
@pytest.mark.parametrize("options", [[], ["--skip-in-flight"]], ids=["", "skip"])
def test_a_client_that_comes_just_before_the_network_is_locked(tmp_path: Path, options: list[str]) -> None:
    """It is connected by then, and would never hear of the end of a connection that nobody has accepted."""
    asked, answered = tmp_path / "asked", tmp_path / "answered"
    for fifo in (asked, answered):
        os.mkfifo(fifo)
    hook = tmp_path / "hook"
    hook.write_text(
        f'#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != network-lock ] || {{ echo > {asked}; read _ < {answered}; }}\n'
    )
    hook.chmod(0o755)
    with joined_namespace() as keeper, InNamespace(keeper) as program, ExitStack() as clients:
        program.start(["nsenter", "-n", "-t", str(keeper), sys.executable, "-c", _GREETER])
        program.wait_log(r"port \d+\n")
        address = ("10.213.7.2", int(program.log().split()[1]))

        def come() -> socket.socket:
            client = clients.enter_context(socket.create_connection(address))
            client.settimeout(time_limit_s(20))
            return client

        early = come()
        assert early.recv(10) == b"welcome"
        late: list[socket.socket] = []

        def come_late() -> None:
            asked.read_text()
            late.append(come())
            answered.write_text("\n")

        thread = threading.Thread(target=come_late)
        thread.start()
        program.dump_options = (*program.dump_options, "--action-script", str(hook), *options)
        program.sleep_and_wake()
        thread.join()
        assert late[0].recv(10) == b"welcome"
        assert come().recv(10) == b"welcome"


@pytest.mark.usefixtures("own_network")
@pytest.mark.parametrize("server", [_SATURATED, _BRISK], ids=["saturated", "brisk"])
def test_one_for_whom_somebody_waits_at_all_times(server: str) -> None:
    """Nobody new is let in until all that wait have been served: none of its clients is lost, and none told so."""
    end = threading.Event()
    lost: list[OSError] = []

    def ask(address: tuple[str, int]) -> None:
        try:
            while not end.is_set():
                # Between the dump and the restore there is nobody, and the namespace says so.
                with suppress(ConnectionRefusedError), socket.create_connection(address, time_limit_s(20)) as client:
                    client.sendall(b"a request")
                    assert client.recv(10) == b"a request"
        except OSError as error:
            lost.append(error)

    with joined_namespace() as keeper, InNamespace(keeper) as program:
        program.start(["nsenter", "-n", "-t", str(keeper), sys.executable, "-c", server, "10.213.7.2"])
        program.wait_log(r"port \d+\n")
        threads = [threading.Thread(target=ask, args=[("10.213.7.2", program.port)]) for _ in range(12)]
        for thread in threads:
            thread.start()
        try:
            program.sleep_and_wake()
        finally:
            end.set()
            for thread in threads:
                thread.join()
        assert not lost


@pytest.mark.usefixtures("own_network")
def test_a_door_that_is_ajar_is_opened_by_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong while the tree runs on and nobody new is let in: its clients come in afterwards."""

    def fail(session: DumpSession, pids: Sequence[Pid], *, is_locked: bool) -> bool:
        if is_locked:
            raise TargetGoneError("it has ended")
        return False

    monkeypatch.setattr(stopping, "_let_it_work", fail)
    network = NetworkPolicy(tcp_established=True)
    with joined_namespace() as keeper, InNamespace(keeper) as program:
        program.start(["nsenter", "-n", "-t", str(keeper), sys.executable, "-c", _GREETER])
        program.wait_log(r"port \d+\n")
        address = ("10.213.7.2", program.port)
        with socket.create_connection(address, time_limit_s(20)) as first:
            assert first.recv(10) == b"welcome"
            monkeypatch.setattr(stopping, "_n_waited_for", lambda session, pids: 1)
            options = DumpOptions(policies=Policies((program.dump_options[-1],), network=network))
            with pytest.raises(TargetGoneError, match="it has ended"):
                run.dump(program.pid, tmp_path, options)
            with socket.create_connection(address, time_limit_s(20)) as second:
                assert second.recv(10) == b"welcome"


def test_one_that_never_accepts(tmp_path: Path) -> None:
    with Program() as program:
        port = _start(program, _DEAF)
        with socket.create_connection(("127.0.0.1", port)) as peer:
            with pytest.raises(engine.EngineError) as caught:
                engine.dump(program.pid, tmp_path, options=["--tcp-established"])
            assert "1 TCP connections wait to be accepted" in caught.value.log
            assert "--skip-in-flight" in caught.value.log
            engine.dump(program.pid, tmp_path, leave_running=True, options=["--skip-in-flight"])
            os.kill(program.pid, signal.SIGUSR1)
            program.wait_log(f"accepted {peer.getsockname()[1]}\n")


@pytest.mark.usefixtures("own_network")
@pytest.mark.parametrize("address", ["10.213.7.2", "fd13:7::2", "::"])
def test_a_client_that_was_left_is_told(address: str) -> None:
    """Its connection is gone, and the reset at the listener's end was held back: it would wait for ever."""
    target = "10.213.7.2" if address == "::" else address
    with joined_namespace() as keeper, InNamespace(keeper) as program, ExitStack() as clients:
        program.start(["nsenter", "-n", "-t", str(keeper), sys.executable, "-c", _HALF_DEAF, address])
        program.wait_log(r"port \d+\n")
        port = int(program.log().split()[1])
        early, late, silent = (clients.enter_context(socket.create_connection((target, port))) for _ in range(3))
        late.sendall(b"a request")
        program.wait_log("accepted")
        program.dump_options = (*program.dump_options, "--skip-in-flight")
        program.sleep_and_wake()
        for each in (late, silent):
            each.settimeout(time_limit_s(20))
            with pytest.raises(ConnectionResetError):
                each.recv(10)
        early.sendall(b"go on")
        program.wait_log("early b'go on'")


def test_nothing_is_said_in_the_name_of_others() -> None:
    """An image names both addresses: the kernel binds a raw socket to none that is not ours."""
    with Socket(socket.AF_INET, socket.SOCK_RAW, packets.RAW) as wire:
        for source, is_ours in ((b"\x7f\0\0\1", True), (b"\xc0\0\2\x63", False)):
            way = packets.Way(source, 1, b"\x7f\0\0\1", 1)
            assert left_clients.tell(wire, way) is is_ours


def test_what_is_no_pair_of_ends_is_no_way() -> None:
    assert [left_clients.way_of(bytes(n)) is not None for n in (0, 1, 11, 12, 13, 35, 36, 37)] == [
        n in (12, 36) for n in (0, 1, 11, 12, 13, 35, 36, 37)
    ]
