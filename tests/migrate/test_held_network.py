"""The network of a container that is on its way: nobody learns where its addresses are until it is there, and then its
neighbours do at once; and whoever sets it up waits until it is held back.
"""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness import network
from harness.events import time_limit_s
from torpor.kernel import announce
from torpor.kernel.exec_watch import ExecWatch
from torpor.kernel.namespaces import CLONE_NEWNET, inside
from torpor.migrate import held_network

pytestmark = pytest.mark.root
_ALL = 0x0003  # ETH_P_ALL
_MAC = "02:00:00:00:77:64"
_LINK = "ip link set lo up; ip link add far address 02:00:00:00:77:01 type veth peer name near address " + _MAC
_FAR = "ip addr add 192.0.2.1/24 dev far; sysctl -qw net.ipv6.conf.far.disable_ipv6=1; ip link set far up"
_NEAR = "ip addr add 192.0.2.2/24 dev near; ip addr add fd00::2/64 dev near nodad; ip link set near up"


@contextmanager
def _wire() -> Iterator[tuple[int, int, socket.socket]]:
    """Pids in two networks with a cable between them, of which the second is not up; what the first one hears."""
    with network.namespace(f"{_LINK}; {_FAR}") as far, network.namespace("ip link set lo up") as near:
        subprocess.run([*network.enter(far), "ip", "link", "set", "near", "netns", str(near)], check=True)

        def listen() -> socket.socket:
            return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))

        fd = os.open(f"/proc/{far}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            heard = inside(fd, CLONE_NEWNET, listen)
        finally:
            os.close(fd)
        with heard:
            heard.settimeout(time_limit_s(20))
            yield far, near, heard


def _ask(far: int) -> None:
    """Something is sent to the address, for which it is looked for."""
    network.ask(far, "ip", "neigh", "flush", "dev", "far")
    program = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.2', 9))"
    network.ask(far, "python3", "-c", program)


def _from_near(heard: socket.socket, n_frames: int) -> list[bytes]:
    """So many frames that have come from there."""
    mac = bytes.fromhex(_MAC.replace(":", ""))
    found: list[bytes] = []
    while len(found) < n_frames:
        frame = heard.recv(2000)
        if frame[6:12] == mac:
            found.append(frame)
    return found


def test_nothing_is_heard_before_it_is_let_go_and_then_where_it_is() -> None:
    with _wire() as (far, near, heard):
        fd = os.open(f"/proc/{near}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            held_network.hold(fd, "torpor-arrival-test")
            network.ask(near, "sh", "-c", _NEAR)
            _ask(far)
            held_network.let_go(fd, "torpor-arrival-test")
        finally:
            os.close(fd)
        first, second = _from_near(heard, 2)
        own = bytes.fromhex(_MAC.replace(":", ""))
        assert announce.arp(own, socket.inet_aton("192.0.2.2")) in (first, second), (first.hex(), second.hex())
        assert "table" not in network.ask(near, "nft", "list", "tables")
        _ask(far)
        while True:
            (frame,) = _from_near(heard, 1)
            if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\x02":  # the answer to a request
                assert socket.inet_aton("192.0.2.2") in frame
                break


def test_who_executes_a_watched_program_waits() -> None:
    # By another process: who starts one in our own would wait with everything of us stopped.
    seen = []
    with ExecWatch([os.path.realpath("/bin/true")]) as watch:
        with subprocess.Popen(["sh", "-c", "/bin/true; exit 7"]) as shell:

            def look(pid: int) -> None:
                with open(f"/proc/{pid}/stat") as stream:
                    parent = int(stream.read().rsplit(")", 1)[1].split()[1])
                if parent == shell.pid:
                    assert shell.poll() is None
                    seen.append(pid)

            while not seen:
                watch.look(int(time_limit_s(20) * 1000), look)
            assert shell.wait(time_limit_s(20)) == 7
    assert len(seen) == 1
