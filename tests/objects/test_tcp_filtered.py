"""Half-closed and ended TCP connections where the tree's own packet filter drops what their peer sends."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from harness.neighbour import joined_namespace
from harness.streams import InNamespace

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]

_SERVER = """
import signal, socket
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
listener = socket.create_server(("10.213.7.2", 0))
print("port", listener.getsockname()[1], flush=True)
peers = [listener.accept()[0] for _ in range(2)]
listener.close()
peers[1].shutdown(socket.SHUT_WR)
for peer, state in zip(peers, (8, 7)):
    while peer.getsockopt(socket.IPPROTO_TCP, 11, 104)[0] != state:
        signal.sigtimedwait([signal.SIGUSR2], 0.01)
print("ready", flush=True)
signal.sigwait([signal.SIGUSR1])
print("result", *(peer.recv(10) for peer in peers for _ in range(2)), flush=True)
"""


@pytest.fixture
def keeper() -> Iterator[int]:
    with joined_namespace() as pid:
        yield pid


def test_filtered(keeper: int) -> None:
    enter = ["nsenter", "-n", "-t", str(keeper)]
    with InNamespace(keeper) as server:
        server.start([*enter, sys.executable, "-c", _SERVER])
        server.wait_log(r"port \d+\n")
        clients = [socket.create_connection(("10.213.7.2", server.port)) for _ in range(2)]
        for client in clients:
            client.sendall(b"last")
            client.shutdown(socket.SHUT_WR)
        server.wait_log("ready")
        rules = f"table ip t {{ chain c {{ type filter hook input priority 0; tcp dport {server.port} drop; }}; }}"
        subprocess.run([*enter, "nft", "-f", "-"], input=rules, text=True, check=True)
        server.sleep_and_wake()
        server.sleep_and_wake()
        assert server.root is not None
        server.root.signal(signal.SIGUSR1)
        server.wait_log("result .*\n")
        # What is not read of an ended connection goes with the reset that does not come.
        assert server.log().splitlines()[-1] in ("result b'last' b'' b'last' b''", "result b'last' b'' b'' b''")
        for client in clients:
            client.close()
