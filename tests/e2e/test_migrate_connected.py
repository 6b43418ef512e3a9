"""``torpor migrate``: a client on a third host keeps its connection, with bytes in flight both ways all the time."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from e2e.moving import TORPOR
from e2e.segment import SERVICE, segment
from e2e.slides import SECOND
from harness import images
from harness.events import time_limit_s
from harness.machine import Machine
from harness.network import listens_at
from harness.podman import Podman
from harness.streams import PUMP

_PORT = 8080
hosts = segment
#: Both ends check every byte by its place; what they have sent and received they write down when the client hangs up.
_SERVER = (
    PUMP
    + f"""
peer, _ = socket.create_server(("", {_PORT})).accept()
counts = pump(peer, lambda: False)
with open("/run/counts", "w") as file:
    file.write("%d %d " % counts)
select.select([], [], [])
"""
)
_TALKER = (
    PUMP
    + f"""
import os
peer = socket.create_connection(("{SERVICE}", {_PORT}), 30)
open("/run/talks", "w").close()
print("%d %d " % pump(peer, lambda: os.path.exists("/run/enough")), flush=True)
"""
)


def _wait(is_true: Callable[[], bool], what: str) -> None:
    """Ask until it is so: what is asked are programs in other namespaces, which offer nothing to wait on."""
    deadline = time.monotonic() + time_limit_s(30)
    while not is_true():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.02)


class _Client:
    """The client on the segment, and what it says when it has had enough."""

    def __init__(self, machine: Machine) -> None:
        self._machine, self._log = machine, machine.base / "client.log"
        line = ("ip", "netns", "exec", "client", sys.executable, "-c", _TALKER)
        self._process = machine.spawn(*line, log=self._log)
        _wait(machine.path("/run/talks").exists, "the client talks")

    def finish(self, counts: Path) -> None:
        """It hangs up: what each end has sent the other has got, and no more."""
        assert self._process.poll() is None, self._log.read_text()
        self._machine.path("/run/enough").touch()
        self._process.wait(time_limit_s(60))
        _wait(lambda: counts.exists() and counts.read_text().endswith(" "), f"{counts} is written")
        sent, received = map(int, self._log.read_text().split())
        assert (received, sent) == tuple(map(int, counts.read_text().split())) and min(sent, received) > 0


def test_a_container_keeps_it(hosts: tuple[Podman, Podman]) -> None:
    first, second = hosts
    for each, parent in ((first, f"to-{SECOND}"), (second, "br0")):
        each("network", "create", "-d", "macvlan", "-o", f"parent={parent}", "--subnet", "192.0.2.0/24", "segment")
    network = ("--network", "segment", "--ip", SERVICE)
    first.run("--name", "counter", *network, images.APPLICATIONS, "python3", "-c", _SERVER)
    first.wait_listening("counter", _PORT)
    client = _Client(second.machine)
    first.machine.run(TORPOR, "migrate", "podman:counter", SECOND, "--remote-torpor", TORPOR, timeout_s=180)
    assert second.is_running("counter")
    place = Path(f"/proc/{second.machine.pid}/root/proc/{second.pid('counter')}/root/run/counts")
    client.finish(place)


def test_a_job_keeps_it_where_its_address_moves(hosts: tuple[Podman, Podman]) -> None:
    """It is in its host's network: whose host answers for its address is up to who moves it."""
    first, second = (each.machine for each in hosts)
    for each, ignore in ((first, "0"), (second, "1")):
        each.run("ip", "address", "add", f"{SERVICE}/32", "dev", "lo")
        _answer(each, ignore)
    first.run(TORPOR, "run", "--detach", "--name", "server", sys.executable, "-c", _SERVER)
    _wait(lambda: listens_at(Path(f"/proc/{first.pid}/net"), _PORT), "the server listens")
    client = _Client(second)
    words = ("--remote-torpor", TORPOR, "--tcp-established", "--yes")
    first.run(TORPOR, "migrate", "job:server", SECOND, *words, timeout_s=180)
    _answer(first, "1")
    _answer(second, "0")
    second.run("ip", "-n", "client", "neighbour", "flush", "all")
    client.finish(second.path("/run/counts"))


def _answer(machine: Machine, ignore: str) -> None:
    """Whether it answers for the address of the service."""
    for device in ("all", "br0", f"to-{SECOND}"):
        setting = machine.path(f"/proc/sys/net/ipv4/conf/{device}/arp_ignore")
        if setting.exists():
            machine.run("sh", "-c", f"echo {ignore} >/proc/sys/net/ipv4/conf/{device}/arp_ignore")
