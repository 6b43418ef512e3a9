"""What the network lock drops of a connection is sent as soon as it is gone: no timer is waited for."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from harness.events import time_limit_s
from harness.network import of_our_own
from harness.streams import FarEnd
from torpor.base.fds import OwnedFd
from torpor.kernel.sockets import Borrowed
from torpor.objects.files.socket import net_lock, tcp_repair
from torpor.tracee import caretaker

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]

#: Well below the second after which the kernel tries again by itself to make a connection.
_AT_ONCE_S = 0.1
#: Of one that there is, not before so many seconds (it would be 200 ms): a busy machine is not taken for it.
_BY_ITSELF_S = 60
_SLOW_ROUTES = (
    f"ip route replace local 127.0.0.1 dev lo table local proto kernel scope host rto_min {_BY_ITSELF_S}s",
    "ip -6 route del local ::1 dev lo table local",
    f"ip -6 route add local ::1 dev lo table local proto kernel metric 1 rto_min {_BY_ITSELF_S}s",
)


@pytest.fixture
def slow_network() -> Iterator[None]:
    """One in which the kernel takes its time."""
    with of_our_own():
        for command in _SLOW_ROUTES:
            subprocess.run(command.split(), check=True)
        yield


@pytest.fixture(params=["127.0.0.1", "::1"])
def ends(request: pytest.FixtureRequest, slow_network: None) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection that has been through repair mode."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as listener:
        near = socket.create_connection(listener.getsockname()[:2])
        far, _ = listener.accept()
    with near, far:
        yield near, far


@pytest.mark.parametrize("method", ["nftables", "iptables"])
@pytest.mark.parametrize("is_corked", [False, True])
def test_what_the_lock_dropped(ends: tuple[socket.socket, socket.socket], method: str, *, is_corked: bool) -> None:
    """send(2) does not fail, and nothing is lost: bytes and the FIN behind them."""
    near, far = ends
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, int(is_corked))
    here, there = near.getsockname(), near.getpeername()
    family = near.family
    packed = net_lock.Ends(socket.inet_pton(family, here[0]), here[1], socket.inet_pton(family, there[0]), there[1])
    keeper = caretaker.Caretaker()
    lock = net_lock.NetLock("probe", method)
    lock.lock(OwnedFd(os.open("/proc/thread-self/ns/net", os.O_RDONLY)), [packed], lambda: keeper)
    with Borrowed(near.fileno()) as connection:
        tcp_repair.begin(connection)
        tcp_repair.end(connection)
    near.sendall(b"x" * 5000)
    near.shutdown(socket.SHUT_WR)
    far.settimeout(0.02)
    with pytest.raises(TimeoutError):
        far.recv(1)
    lock.let_through()
    with Borrowed(near.fileno()) as connection:
        step = tcp_repair.wake_step(connection, 1)
    began = time.monotonic()
    caretaker.do(step)
    far.settimeout(time_limit_s(20))
    received = b""
    while data := far.recv(10000):
        received += data
    assert time.monotonic() - began < _BY_ITSELF_S / 2
    assert received == b"x" * 5000
    assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) == int(is_corked)
    assert near.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
    lock.close()
    keeper.dismiss()


_CALLING = """
import select, socket, sys
caller = socket.socket()
caller.setblocking(False)
assert caller.connect_ex(("127.0.0.1", int(sys.argv[1]))) != 0
print("calling", flush=True)
select.select([], [caller], [])
print("error", caller.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), flush=True)
caller.sendall(b"hello")
"""


_UNHEARD = """
table inet unheard {
    chain input {
        type filter hook input priority 0
        tcp dport PORT drop
    }
}
"""


def _nft(text: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


def test_one_that_is_being_made() -> None:
    """Its SYN is not one of the packets that the lock drops: the kernel sends it again after a second only."""
    with socket.create_server(("127.0.0.1", 0)) as listener, FarEnd() as far:
        port = listener.getsockname()[1]
        _nft(_UNHEARD.replace("PORT", str(port)))
        far.start([sys.executable, "-c", _CALLING, str(port)])
        far.wait_log("calling")
        far.checkpoint()
        _nft("delete table inet unheard")
        far.restore()
        listener.settimeout(_AT_ONCE_S)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(5)
            assert connection.recv(10) == b"hello"
        far.wait_log("error 0\n")
