"""Connections that wait to be accepted: a dump comes when there are none, and says so where they never end."""

import os
import signal
import socket
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from harness import engine
from harness.events import time_limit_s
from harness.neighbour import joined_namespace
from harness.program import Program
from harness.rounds import rounds
from harness.streams import InNamespace
from torpor.kernel import packets
from torpor.kernel.sockets import Socket
from torpor.objects.files.socket import left_clients

pytestmark = pytest.mark.root

N_DUMPS = 5

_BUSY = """
import socket
listener = socket.create_server(("127.0.0.1", 0), backlog=100)
print("port", listener.getsockname()[1], flush=True)
while True:
    peer, _ = listener.accept()
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
print("accepted", listener.accept()[1][1], flush=True)
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


def test_a_busy_server(tmp_path: Path) -> None:
    """One that accepts and ends connections without a pause can be dumped at any time."""
    end = threading.Event()

    def talk(port: int) -> None:
        while not end.is_set():
            with suppress(ConnectionResetError), socket.create_connection(("127.0.0.1", port)) as peer:
                peer.recv(10)

    with Program() as program:
        port = _start(program, _BUSY)
        thread = threading.Thread(target=talk, args=(port,))
        thread.start()
        try:
            for _ in range(N_DUMPS):
                engine.dump(program.pid, tmp_path, leave_running=True, options=["--tcp-established"])
        finally:
            end.set()
            thread.join()


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
