"""``torpor migrate``: a container of runc alone moves to another host, where its bundle lies as well."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from e2e.slides import SECOND, let_in
from harness import relay
from harness.events import time_limit_s
from harness.machine import Machine, need_commands
from harness.runc import COUNTER, read_count
from harness.streams import PUMP

_TORPOR, _BUNDLE, _NAME = "/usr/local/sbin/torpor", "/run/bundle", "torpor-moved"
_SERVICE, _CLIENT, _PORT = "192.0.2.100", "192.0.2.50", 7777
#: Sends back whatever it gets.
_ECHO = ["busybox", "nc", "-l", "-p", str(_PORT), "-e", "cat"]
_NEAR = (
    PUMP
    + f"""
import os, sys
peer = socket.create_connection(("{_SERVICE}", {_PORT}), 30)
open("/run/talks", "w").close()
print(*pump(peer, lambda: os.path.exists("/run/enough")), flush=True)
"""
)


class Host(Machine):
    """A machine with runc, the engine, and torpor."""

    def set_up(self, args: list[str], *, network: bool) -> None:
        """A bundle of busybox that runs *args*, in a network of its own on the segment if that is wanted."""
        self.write(_TORPOR, f'exec {sys.executable} -m torpor.cli.torpor "$@"')
        root = self.path(f"{_BUNDLE}/rootfs")
        for directory in ("bin", "tmp", "proc", "sys", "dev", "etc"):
            (root / directory).mkdir(parents=True)
        busybox = shutil.which("busybox")
        assert busybox is not None
        shutil.copy(busybox, root / "bin/busybox")
        for applet in ("sh", "ln", "mv", "sleep", "cat"):
            (root / "bin" / applet).symlink_to("busybox")
        self.run("sh", "-c", f"cd {_BUNDLE} && runc spec")

        def change(config: dict[str, Any]) -> None:
            config["process"] |= {"terminal": False, "args": args, "rlimits": []}
            config["root"]["readonly"] = False
            for namespace in config["linux"]["namespaces"]:
                if namespace["type"] == "network" and network:
                    namespace["path"] = "/run/netns/service"

        self.edit(change)

    def edit(self, change: Any) -> None:
        """Have *change* change the configuration of the bundle."""
        path = self.path(f"{_BUNDLE}/config.json")
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))

    def write(self, path: str, line: str) -> None:
        """A command."""
        source = os.environ["PYTHONPATH"]
        place = self.path(path)
        place.write_text(f"#!/bin/sh\nexport PYTHONPATH='{source}' TORPOR_STATE=/run/torpor\n{line}\n")
        place.chmod(0o755)

    def add_network(self, name: str, parent: str, address: str, *, up: bool) -> None:
        """A network namespace on the segment of *parent*."""
        mac = "02:00:00:00:77:" + address.rpartition(".")[2].zfill(2)[-2:]
        for line in (
            f"netns add {name}",
            f"link add link {parent} name seg0 address {mac} netns {name} type macvlan mode bridge",
            f"-n {name} address add {address}/24 dev seg0",
            f"-n {name} link set lo up",
            f"-n {name} link set seg0 {'up' if up else 'down'}",
        ):
            self.run("ip", *line.split())

    def start(self) -> None:
        """The container."""
        self.run("sh", "-c", f"runc run --detach --bundle {_BUNDLE} {_NAME} >/dev/null 2>&1 </dev/null")

    def status(self, name: str = _NAME) -> str:
        """As runc says it; "" for one that it does not know."""
        done = self.run("runc", "state", name, check=False)
        return "" if done.returncode else str(json.loads(done.stdout)["status"])

    def count(self) -> int:
        """How far it has counted."""
        return read_count(self.path(f"{_BUNDLE}/rootfs"))

    def wait_counting(self, beyond: int) -> int:
        """Until it has counted on from there."""
        wait_until(lambda: self.count() > beyond, f"{self.name} counts on from {beyond}")
        return self.count()

    def rules(self) -> str:
        """What is locked in the network of the service."""
        return self.out("ip", "netns", "exec", "service", "nft", "list", "ruleset")

    def close(self) -> None:
        for name in self.out("runc", "list", "--quiet").split():
            self.run("runc", "resume", name, check=False)
            self.run("runc", "delete", "--force", name, check=False)
        super().close()


def wait_until(is_true: Callable[[], bool], what: str) -> None:
    """Ask until it is so: what is asked are programs in other namespaces, which offer nothing to wait on."""
    deadline = time.monotonic() + time_limit_s(30)
    while not is_true():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.02)


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """Two, with a cable between them, each of whose root may log in to the other."""
    need_commands({"runc": "runc", "busybox": "busybox-static", "sshd": "openssh-server", "nft": "nftables"})
    with ExitStack() as stack:
        first = stack.enter_context(Host("first"))
        second = stack.enter_context(Host(SECOND))
        first.join(second)
        let_in(first, second)
        yield first, second


def _migrate(here: Host, *words: str, check: bool = True) -> str:
    line = [_TORPOR, "migrate", f"runc:{_NAME}", SECOND, "--remote-torpor", _TORPOR, *words]
    done = here.run(*line, check=check, merge=True, timeout_s=180)
    assert check or done.returncode != 0, done.stdout
    return done.stdout


def test_it_counts_on_there(hosts: tuple[Host, Host]) -> None:
    first, second = hosts
    for each in hosts:
        each.set_up(["sh", "-c", COUNTER], network=False)
    first.start()
    before = first.wait_counting(3)
    # Both hosts are one kernel, and one name is one control group: it would be taken from under what runs here.
    said = _migrate(first, check=False)
    assert f"{_NAME}" in said and "is in use here" in said and "--name" in said, said
    assert first.wait_counting(before) > before
    assert f"other runs on {SECOND}" in _migrate(first, "--name", "other", "--persist", "/run/copy")
    before = first.count()
    assert second.wait_counting(before) > before
    assert (first.status(), second.status("other")) == ("", "running")
    assert not list(first.path("/run/torpor/migrating").glob("*"))
    assert not list(second.path("/run/torpor/unpacked").glob("*"))
    second.run("runc", "delete", "--force", "other")
    first.run(_TORPOR, "restore", "/run/copy/images")
    assert first.wait_counting(before) > before


def test_what_stands_in_the_way_is_said_before(hosts: tuple[Host, Host]) -> None:
    first, second = hosts
    for each in hosts:
        each.set_up(["sh", "-c", COUNTER], network=False)
    first.start()
    elsewhere = ("--dry-run", "--name", "other")
    assert "nothing stands in the way" in _migrate(first, *elsewhere)
    assert "no bundle in /nowhere" in _migrate(first, *elsewhere, "--bundle", "/nowhere", check=False)
    second.edit(lambda config: config["mounts"].append({"type": "bind", "source": "/none", "destination": "/mnt"}))
    second.path(f"{_BUNDLE}/rootfs").rename(second.path(f"{_BUNDLE}/away"))
    said = _migrate(first, *elsewhere, check=False)
    assert "no root file system in /run/bundle/rootfs" in said and "/none" in said, said
    # runc pauses by the freezer, as a checkpoint stops what it takes.
    first.run("runc", "pause", _NAME)
    said = _migrate(first, *elsewhere, check=False)
    assert "is frozen by the control group" in said and f"runc resume {_NAME}" in said, said
    first.run("runc", "resume", _NAME)
    first.edit(lambda config: config["process"].update(terminal=True))
    assert "has a terminal" in _migrate(first, *elsewhere, check=False)
    assert first.wait_counting(first.count()) > 0


def test_who_is_frozen_can_be_taken_away(hosts: tuple[Host, Host]) -> None:
    """A runtime that was killed in a checkpoint leaves its container so: of v1, it does not even die."""
    first, _ = hosts
    first.set_up(["sh", "-c", COUNTER], network=False)
    first.start()
    first.run("runc", "pause", _NAME)
    program = f"from torpor.containers.oci import RUNC; RUNC.remove(RUNC.find('{_NAME}')[0])"
    first.write("/usr/local/sbin/remove", f'exec {sys.executable} -c "{program}"')
    first.run("/usr/local/sbin/remove")
    assert first.status() == ""


@pytest.mark.parametrize(
    ("message", "victim"),
    [("images", "runc"), ("rebuild", "runc"), ("rebuild", "destination"), ("rebuild", "source"), ("go", "source")],
)
def test_one_of_it_lives_whoever_is_killed(hosts: tuple[Host, Host], message: str, victim: str) -> None:
    first, second = hosts
    for each in hosts:
        each.set_up(["sh", "-c", COUNTER], network=False)
    first.start()
    first.wait_counting(3)
    harm = f"exec {sys.executable} {relay.__file__} {message} -0.001 {victim}"
    line = [_TORPOR, "migrate", f"runc:{_NAME}", SECOND, "--name", "other", "--rounds", "0"]
    if victim == "destination":
        second.write("/usr/local/sbin/harmed", f'{harm} {sys.executable} -m torpor.cli.torpor "$@"')
        line += ["--remote-torpor", "/usr/local/sbin/harmed"]
    else:
        first.write("/usr/local/sbin/harm", f'{harm} ssh "$@"')
        line += ["--remote-torpor", _TORPOR, "--rsh", "/usr/local/sbin/harm"]
    done = first.run(*line, check=False, merge=True, timeout_s=180)
    wait_until(lambda: not (_at_work(first) or _at_work(second)), "nobody is at work")
    here, there = first.status(), second.status("other")
    print(done.returncode, done.stdout, here, there)
    if there:
        assert there == "running" and here in (("", "stopped") if victim == "source" else ("",))
        second.wait_counting(first.count())
    else:
        assert here == "running" and done.returncode != 0, done.stdout
        assert not second.out("runc", "list", "--quiet")
        first.wait_counting(first.count())


def _at_work(host: Host) -> bool:
    """Whether torpor, an engine or the runtime is about something there."""
    said = host.out("ps", "-e", "-o", "args=")
    is_runc = any(line.split()[0].endswith("runc") for line in said.splitlines() if line.strip())
    return is_runc or any(word in said for word in ("torpor.cli.torpor", "swrk"))


def test_a_connection_goes_along_and_comes_back(hosts: tuple[Host, Host]) -> None:
    """Bytes are in flight both ways all the time; none is lost, none comes twice.  A move that fails harms none."""
    first, second = hosts
    for each, other in ((first, second), (second, first)):
        each.add_network("service", f"to-{other.name}", _SERVICE, up=each is first)
        each.set_up(_ECHO, network=True)
    second.add_network("client", f"to-{first.name}", _CLIENT, up=True)
    first.start()
    listening = ("ss", "-N", "service", "-Hltn", "sport", "=", f":{_PORT}")
    wait_until(lambda: first.out(*listening) != "", "the server listens")
    log = second.base / "near.log"
    near = second.spawn("ip", "netns", "exec", "client", sys.executable, "-c", _NEAR, log=log)
    wait_until(second.path("/run/talks").exists, "the client talks")
    criu = second.path("/usr/local/sbin/criu")
    criu.rename(criu.with_name("away"))
    said = _migrate(first, "--name", "other", check=False)
    assert f"runc:{_NAME} runs on here" in said, said
    assert near.poll() is None, log.read_text()
    assert not second.rules() and not first.rules()
    assert "state DOWN" in second.out("ip", "-n", "service", "link", "show", "seg0")
    criu.with_name("away").rename(criu)
    _migrate(first, "--name", "other")
    assert second.status("other") == "running"
    assert not second.rules() and not first.rules()
    assert "state DOWN" in first.out("ip", "-n", "service", "link", "show", "seg0")
    second.path("/run/enough").touch()
    near.wait(time_limit_s(60))
    sent, received = map(int, log.read_text().split())
    assert sent == received > 0
