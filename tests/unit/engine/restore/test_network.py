"""Which connections are held back while they are made, and whom a dump's lock is lifted for."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from torpor.base.errors import RefusedError
from torpor.engine.options import RestoreOptions
from torpor.engine.restore import network
from torpor.engine.restore.session import RestoreSession
from torpor.images import messages as m
from torpor.objects.files.socket import net_lock
from torpor.objects.policy import NetworkPolicy, Policies
from torpor.tracee import caretaker
from unit.engine.restore.making import Member, filled, read, runner, stored

_TCP, _UDP, _ESTABLISHED, _CLOSED, _LISTEN = 6, 17, 1, 7, 10
_NFTABLES, _SKIP = 1, 2
_OWN = 7


def _inet(
    ident: int, *, proto: int = _TCP, state: int = _ESTABLISHED, dst_port: int = 80, ns_id: int = 0
) -> m.file_entry:
    isk = m.inet_sk_entry(
        id=ident, family=2, type=1, proto=proto, state=state, src_port=1000 + ident, dst_port=dst_port,
        src_addr=[0x0100007F], dst_addr=[0x0100007F],
    )  # fmt: skip
    if ns_id:
        isk.ns_id = ns_id
    return m.file_entry(type=m.fd_types.INETSK, id=ident, isk=filled(isk))


_FILES = [
    _inet(1),
    _inet(2, proto=_UDP),
    _inet(3, state=_LISTEN, dst_port=0),
    _inet(4, state=_CLOSED),
    _inet(5, ns_id=_OWN),
    _inet(6, ns_id=99),
]


class World:
    """What the kernel would be told."""

    def __init__(self) -> None:
        self.locked: list[int] = []
        self.unlocked: list[tuple[str, int, list[int] | None]] = []
        self.added: list[int] = []
        self.announced = 0
        self.told: list[str] = []
        self.has_table = False
        self.refuses = False

    def lock(self, netns: object, ends: list[Any], keeper: Callable[[], object]) -> None:
        if self.refuses:
            raise RefusedError("no nftables here")
        self.locked = [_port(each) for each in ends]

    def left(self, run_id: str, method: int, ends: list[Any] | None) -> object:
        what = (run_id, method, None if ends is None else [_port(each) for each in ends])
        return SimpleNamespace(let_through=lambda: self.unlocked.append(what), steps=lambda: [(1, 0, what)])

    def caretaker(self) -> object:
        def add(steps: list[caretaker.Step]) -> list[int]:
            self.added += [kind for kind, _, _ in steps]
            return [5]

        def announce(steps: list[caretaker.Step]) -> None:
            self.announced += len(steps)

        return SimpleNamespace(add=add, announce=announce)


def _port(ends: Any) -> int:
    """Of ours."""
    assert isinstance(ends, m.inet_sk_entry)
    return ends.src_port - 1000


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(net_lock, "ends_of", lambda sk: sk)
    monkeypatch.setattr(net_lock, "has_table", lambda run_id: made.has_table)
    monkeypatch.setattr(net_lock, "NetLock", lambda run_id, _: SimpleNamespace(lock=made.lock, close=lambda: None))
    monkeypatch.setattr(net_lock, "Left", made.left)
    monkeypatch.setattr(caretaker, "Caretaker", made.caretaker)
    monkeypatch.setattr(network, "inside", lambda fd, flags, work: work())
    return made


@contextmanager
def _session(world: World, *, net: int = 1, close: bool = False, **inventory: Any) -> Iterator[RestoreSession]:
    told = m.inventory_entry(**inventory)
    options = RestoreOptions(
        policies=Policies(network=NetworkPolicy(tcp_close=close)), notify=lambda action, pid: world.told.append(action)
    )
    session = read(stored((Member(10, ids={"net_ns_id": net}),), _FILES, told), options)
    session.root.threads[0].made = runner(os.getpid())
    try:
        yield session
    finally:
        session.channel.close()


def test_connections_of_the_roots_network_are_held(world: World) -> None:
    with _session(world, net=_OWN) as session:
        network.hold(session)
    # Not what has no other end, or none any more, and nothing of another namespace.
    assert world.locked == [1, 5]


@pytest.mark.parametrize("why", ["skip", "closed", "locked by the dump", "held already"])
def test_nothing_is_held(world: World, why: str) -> None:
    world.has_table = why == "locked by the dump"
    inventory = {"network_lock_method": _SKIP} if why == "skip" else {}
    with _session(world, close=why == "closed", **inventory) as session:
        if why == "held already":
            network.hold(session)
            world.locked = []
        network.hold(session)
        assert world.locked == []
        assert (session.caretaker is not None) == (why == "held already")


def test_a_lock_that_cannot_be_does_not_stop_the_restore(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.refuses = True
    with _session(world) as session:
        network.hold(session)
    assert world.locked == []


@pytest.mark.parametrize(("net", "told"), [(_OWN, ["network-unlock"]), (1, [])])
def test_whoever_locked_a_network_of_the_trees_own_is_told(world: World, net: int, told: list[str]) -> None:
    with _session(world, net=net) as session:
        network.tell(session)
    assert world.told == told


@pytest.mark.parametrize(
    ("net", "inventory", "unlocked"),
    [
        # A namespace of its own is unlocked as a whole, our own one by connections.
        (_OWN, {"dump_criu_run_id": "abc", "network_lock_method": _NFTABLES}, [("abc", _NFTABLES, None)]),
        (1, {"dump_criu_run_id": "abc", "network_lock_method": _NFTABLES}, [("abc", _NFTABLES, [1, 5, 6])]),
        # Images from before these fields: iptables, by the root's pid.
        (1, {}, [("10", 0, [1, 5, 6])]),
        (1, {"network_lock_method": _SKIP}, []),
    ],
)
def test_what_the_dump_locked_is_let_go(
    world: World, net: int, inventory: dict[str, Any], unlocked: list[object]
) -> None:
    with _session(world, net=net, **inventory) as session:
        network.promise(session)
        assert world.unlocked == []
        network.announce(session)
        network.let_go(session)
        assert session.is_unlocked
    assert world.unlocked == unlocked
    # Our death ends the tree before, and unlocks afterwards.
    assert len(world.added) == world.announced == len(unlocked)


def test_without_connections_nobody_else_is_needed(world: World) -> None:
    """What was locked is unlocked while our death is still the tree's end: there is nobody to be told anything."""
    with _session(world, close=True, dump_criu_run_id="abc", network_lock_method=_NFTABLES) as session:
        network.promise(session)
        network.announce(session)
        assert session.caretaker is None
        assert world.unlocked == [("abc", _NFTABLES, [])]
        network.let_go(session)
    assert len(world.unlocked) == 1
