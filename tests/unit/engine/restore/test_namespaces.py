"""Which namespaces the root puppet is cloned with, which it joins, which it makes for itself."""

import os
from typing import Any

import pytest

from torpor.base.errors import NotPermittedError, RestoreError
from torpor.engine.options import JoinNs, RestoreOptions
from torpor.engine.restore import namespaces, privileges
from torpor.engine.restore.session import RestoreSession
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import store_one
from torpor.kernel import namespaces as ns
from torpor.objects.ns import timens, userns
from unit.engine.restore.making import OUTSIDE, Member, filled, read, runner, stored

_OWN = 50


@pytest.fixture(autouse=True)
def no_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clocks go on as they are, unless a test says otherwise."""
    monkeypatch.setattr(timens, "is_wanted", lambda store: False)


def _session(*names: str, pid: int = 1, more: tuple[Member, ...] = (), **options: Any) -> RestoreSession:
    """Of a tree with these namespaces for itself."""
    ids = {f"{name}_ns_id": _OWN for name in names}
    session = read(stored((Member(pid, ids=ids), *more)), RestoreOptions(**options))
    session.channel.close()
    return session


def test_a_tree_in_our_own_gets_none() -> None:
    session = _session(pid=10)
    namespaces.plan(session)
    assert (session.namespaces, session.new_time, session.joined) == (0, False, [])


def test_a_containers_are_made_by_clone_but_for_two() -> None:
    """A time namespace is the stub's, whose clocks can still be set; that of control groups is made in them."""
    session = _session("pid", "net", "ipc", "uts", "mnt", "time", "cgroup")
    namespaces.plan(session)
    made = ns.CLONE_NEWPID | ns.CLONE_NEWNET | ns.CLONE_NEWIPC | ns.CLONE_NEWUTS | ns.CLONE_NEWNS
    assert session.root_clone_flags == made
    assert (session.new_time, session.time_ident, session.new_cgroup_ns) == (True, _OWN, True)
    assert session.namespaces == made | ns.CLONE_NEWCGROUP


def test_clocks_that_would_not_go_on_get_a_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timens, "is_wanted", lambda store: True)
    session = _session(pid=10)
    namespaces.plan(session)
    assert session.new_time and not session.root_clone_flags


def test_ids_are_mapped_for_everyone(monkeypatch: pytest.MonkeyPatch) -> None:
    maps: Any = object()
    monkeypatch.setattr(userns, "load", lambda store, ident: (maps, ident != _OWN))
    session = _session("user", more=(Member(2, 1, 1, 1),))
    namespaces.plan(session)
    assert session.root_clone_flags == ns.CLONE_NEWUSER
    assert not session.allows_setgroups
    assert all(process.idmaps is maps for process in session.everyone)


def test_the_first_of_a_pid_namespace_is_1() -> None:
    with pytest.raises(RestoreError, match="pid 7 cannot be the first of a new pid namespace"):
        namespaces.plan(_session("pid", pid=7))


@pytest.mark.parametrize("has_its_own", [False, True])
def test_a_new_network_is_one_in_any_case(has_its_own: bool) -> None:
    session = _session(*(["net"] if has_its_own else []), pid=10, new_network=True)
    namespaces.plan(session)
    assert session.root_clone_flags == ns.CLONE_NEWNET


def test_what_is_joined_by_name_is_not_made() -> None:
    session = _session("net", "uts", pid=10, join_ns=(JoinNs("net", str(os.getpid())),))
    namespaces.plan(session)
    [joined] = session.joined
    with joined.fd:
        assert joined.flag == ns.CLONE_NEWNET
        assert os.stat(joined.fd.fileno()).st_ino == os.stat("/proc/self/ns/net").st_ino
        assert session.root_clone_flags == ns.CLONE_NEWUTS
        assert session.namespaces == ns.CLONE_NEWUTS | ns.CLONE_NEWNET


@pytest.mark.parametrize(
    ("wanted", "said"),
    [(JoinNs("nothing", "1"), "no such kind"), (JoinNs("net", "/nowhere/at/all"), "/nowhere/at/all: No such file")],
)
def test_what_cannot_be_joined_is_named(wanted: JoinNs, said: str) -> None:
    with pytest.raises(RestoreError, match=said):
        namespaces.plan(_session(pid=10, join_ns=(wanted,)))


def test_an_external_one_is_what_was_handed_in() -> None:
    session = _session("net", pid=10)
    store_one(session.store, kinds.NETNS, filled(m.netns_entry(ext_key="the-pods")), _OWN)
    with pytest.raises(RestoreError, match="external: the-pods") as caught:
        namespaces.plan(session)
    assert "--inherit-fd fd[N]:the-pods" in caught.value.describe()
    with open("/proc/self/ns/net") as given:
        session.context.files.inherited["the-pods"] = given.fileno()
        namespaces.plan(session)
        with session.joined[0].fd as fd:
            assert fd.fileno() != given.fileno()
    assert not session.root_clone_flags


def test_images_from_before_the_field_have_no_namespaces() -> None:
    session = _session("net", "uts", pid=10)
    store_one(session.store, kinds.INVENTORY, m.inventory_entry(img_version=1))
    namespaces.plan(session)
    assert not session.namespaces


@pytest.mark.parametrize(("ident", "is_refused"), [(0, True), (OUTSIDE["net_ns_id"], True), (99, False)])
def test_a_tun_device_would_be_our_own_networks(ident: int, is_refused: bool) -> None:
    tun = m.file_entry(type=m.fd_types.TUNF, id=4, tunf=filled(m.tunfile_entry(id=4, netdev="tun0", ns_id=ident)))
    session = read(stored((Member(10),), [tun]))
    session.channel.close()
    if is_refused:
        with pytest.raises(RestoreError, match="tun0 would be an interface of this machine's own network"):
            namespaces.enter_network(session)
    else:
        namespaces.enter_network(session)
    assert session.network is None


def test_places_are_the_roots_first_then_those_nested_in_it() -> None:
    """By the order of kinds in the table, each kind once."""
    session = _session("mnt", "ipc")
    namespaces.plan(session)
    session.root.threads[0].made = runner(os.getpid())
    from torpor.base.fds import OwnedFd

    with (
        OwnedFd(os.open("/proc/self/ns/mnt", os.O_RDONLY)) as home,
        OwnedFd(os.open("/proc/self/ns/mnt", os.O_RDONLY)) as other,
    ):
        session.nested = {(ns.CLONE_NEWNS, _OWN): home, (ns.CLONE_NEWNS, 60): other}
        found = [(kind.link, [(each.ident, each.is_nested) for each in places])
                 for kind, places in namespaces._iter_places(session)]  # fmt: skip
    assert found == [("ipc", [(_OWN, False)]), ("mnt", [(_OWN, False), (60, True)])]


# -- what we must be allowed ---------------------------------------------------------------------------------


def test_descriptors_that_we_may_not_have_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    def refuse(which: int, limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda which: (100, 100))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    session = read(stored((Member(10, fds=(0, 250)),)))
    session.channel.close()
    with pytest.raises(NotPermittedError, match="the tree needs 251 descriptors, and RLIMIT_NOFILE allows torpor 100"):
        privileges.check_restore(session)


def test_capabilities_that_we_have_not_cannot_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    ours = SimpleNamespace(cap_permitted=0b1, cap_effective=0)
    monkeypatch.setattr(privileges, "read_status", lambda pid: ours)
    session = _session(pid=10)
    creds = session.root.core.thread_core.creds
    creds.cap_prm.append(0b1)
    privileges.check_restore(session)
    creds.cap_prm[0] = 0b11
    with pytest.raises(NotPermittedError, match="pid 10 has CAP_DAC_OVERRIDE, and torpor has not"):
        privileges.check_restore(session)
    # In a user namespace of its own nobody's capabilities are the host's.
    session.root_clone_flags = ns.CLONE_NEWUSER
    privileges.check_restore(session)


def test_namespaces_are_for_who_may_make_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    ours = SimpleNamespace(cap_permitted=0, cap_effective=0)
    monkeypatch.setattr(privileges, "read_status", lambda pid: ours)
    session = _session("uts", pid=10)
    namespaces.plan(session)
    with pytest.raises(NotPermittedError, match="needs CAP_SYS_ADMIN"):
        privileges.check_restore(session)
    ours.cap_effective = 1 << 21
    privileges.check_restore(session)
