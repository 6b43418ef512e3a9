"""A worker goes out of the control group that was made for a container, where memory is short in it.

The container that fills its `memory.max`, and is restored by a runtime, is in tests/vm/test_in_systemd.py.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from torpor.images import messages as m
from torpor.rpc import outside
from torpor.rpc.outside import Outside

_TYPE = m.criu_req_type


class World:
    """A control group `/made` of ours, with a client whose request waits."""

    def __init__(self, base: Path, client: socket.socket, worker: socket.socket) -> None:
        self.group, self.images = base / "groups/made", base / "images"
        self.client, self.worker = client, worker
        self.group.mkdir(parents=True)
        self.images.mkdir()
        (self.images / "pages-1.img").write_bytes(bytes(1 << 20))
        (self.group / "cgroup.procs").write_text(f"{os.getpid()}\n")
        self.limit("16777216")

    def limit(self, value: str) -> None:
        (self.group / "memory.max").write_text(f"{value}\n")

    def ask(self, what: int = _TYPE.RESTORE, *, sibling: bool = True) -> bytes:
        opts = m.criu_opts(images_dir_fd=-1, images_dir=str(self.images), rst_sibling=sibling)
        packet = m.criu_req(type=what, opts=opts).SerializeToString()
        self.client.send(packet)
        return packet


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    groups = {"self": "/made", str(os.getppid()): "/runtime"}
    monkeypatch.setattr(outside, "_ROOT", str(tmp_path / "groups"))
    monkeypatch.setattr(outside, "_group_of", groups.__getitem__)
    client, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with client, worker:
        yield World(tmp_path, client, worker)


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(outside, "_enter", found.append)
    return found


def test_it_begins_anew_elsewhere(world: World, entered: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is still to be read, somebody stays in the group, and where that fails all is as it was."""
    begun: list[Outside] = []

    def begin(fd: int, left: Outside) -> None:
        assert fd == world.worker.fileno() and entered == ["/runtime"]
        while Path(f"/proc/{left.keeper}/comm").read_text() != "sleep\n":
            pass
        begun.append(left)
        raise FileNotFoundError

    monkeypatch.setattr(outside, "_begin_anew", begin)
    packet = world.ask()
    outside.leave(world.worker.fileno())
    assert [left.group for left in begun] == ["/made"] and entered == ["/runtime", "/made"]
    assert not Path(f"/proc/{begun[0].keeper}").exists()
    begun[0].end()  # once more does nothing
    assert world.worker.recv(len(packet) + 1) == packet and not world.worker.get_inheritable()


@pytest.mark.parametrize("case", ["dump", "child", "unlimited", "wide", "shared", "silent"])
def test_it_stays_where_that_is_of_no_use(
    world: World, entered: list[str], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr(outside, "_start_keeper", lambda: pytest.fail("it leaves"))
    if case in ("unlimited", "wide"):
        world.limit({"unlimited": "max", "wide": str(1 << 30)}[case])
    if case == "shared":
        (world.group / "cgroup.procs").write_text(f"{os.getpid()}\n1\n")
    if case == "silent":
        world.client.close()
    else:
        world.ask(_TYPE.DUMP if case == "dump" else _TYPE.RESTORE, sibling=case != "child")
    outside.leave(world.worker.fileno())
    assert entered == []


def test_it_stays_where_nobody_can_keep_the_group(
    world: World, entered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "_NOTHING", ["no-such-program"])
    world.ask()
    outside.leave(world.worker.fileno())
    assert entered == []


def test_what_it_was_told_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert outside.taken() is None
    monkeypatch.setenv("TORPOR_OUTSIDE_OF", "4711:/a:b")
    assert outside.taken() == Outside("/a:b", 4711)  # type: ignore[arg-type]
    assert outside.taken() is None
