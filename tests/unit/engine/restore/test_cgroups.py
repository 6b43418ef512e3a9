"""Who is moved into which control groups, and from where: a puppet is born in those of whose clone it is."""

from types import SimpleNamespace
from typing import Any

import pytest

from torpor.engine.options import RestoreOptions
from torpor.engine.restore import cgroups
from torpor.engine.restore.cgroups import CgroupRestore
from torpor.engine.restore.session import RestoreSession
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.store import store_one
from torpor.objects.cgroup import membership, model, namespace
from torpor.objects.cgroup.membership import Member as Group
from torpor.objects.cgroup.model import CgroupPolicy
from unit.engine.restore.making import Member, filled, read, runner, session_of, stored

_OURS, _FIRST, _SECOND, _THREADS = 1, 2, 3, 4
_SETS = {
    _FIRST: (Group("pids", "/first"), Group("", "/unified")),
    _SECOND: (Group("pids", "/second"), Group("", "/unified")),
    _THREADS: (Group("pids", "/threads"), Group("", "/unified/threads")),
}


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, dict[str, str], dict[str, str]]]:
    """Of each move: who, whereto, and where the mover takes it to be."""
    made: list[tuple[int, dict[str, str], dict[str, str]]] = []

    def move(task: int, members: Any, at: dict[str, str], yard: object, *, thread: bool = False) -> None:
        made.append((task, {each.hierarchy: each.path for each in members}, dict(at)))

    monkeypatch.setattr(membership, "move", move)
    return made


def _session(**sets: int) -> RestoreSession:
    """Three processes, the last a clone of the second; which sets they are in by their names."""
    session = read(stored((Member(10, threads=(11,)), Member(20, 10), Member(30, 20), Member(40, 10, is_dead=True))))
    session.channel.close()
    for process in session.everyone:
        for thread in process.threads:
            thread.made = runner(process.ns_pid, thread.ns_tid)
            thread.core.thread_core.cg_set = sets.get(f"p{thread.ns_tid}", 0)
    session.everyone[2].cloned_from = session.everyone[1]
    maker = SimpleNamespace(make_held=lambda: None, set_held=lambda: None)
    session.cgroups = CgroupRestore(None, maker, _SETS, frozenset({"pids"}), _OURS, {"pids": "/ours", "": "/me"})  # type: ignore[arg-type]
    return session


def test_a_set_that_is_not_there() -> None:
    found = _session().cgroups
    assert found is not None
    assert found.wanted(_FIRST) == _SETS[_FIRST]
    # Those who were in the dumper's groups stay where the restorer is.
    assert found.wanted(0) is None and found.wanted(_OURS) is None
    with pytest.raises(ImageError, match="no set 9"):
        found.wanted(9)


Moves = list[tuple[int, dict[str, str], dict[str, str]]]


def test_the_root_comes_from_where_we_are(moves: Moves) -> None:
    cgroups.enter_root(_session(p10=_FIRST))
    assert moves == [(10, {"pids": "/first", "": "/unified"}, {"pids": "/ours", "": "/me"})]


def test_a_cgroup_namespace_is_made_at_its_top(moves: Moves, monkeypatch: pytest.MonkeyPatch) -> None:
    session = _session(p10=_FIRST)
    assert session.cgroups is not None
    session.cgroups.sets = {_FIRST: (Group("pids", "/top/below", 4),)}
    session.new_cgroup_ns = True
    monkeypatch.setattr(namespace, "enter_new", lambda runner: moves.append((runner.tid, {}, {})))
    cgroups.enter_root(session)
    assert moves == [
        (10, {"pids": "/top"}, {"pids": "/ours", "": "/me"}),
        (10, {}, {}),
        (10, {"pids": "/top/below"}, {"pids": "/top", "": "/me"}),
    ]


def test_others_come_from_the_groups_of_whose_clone_they_are(moves: Moves) -> None:
    session = _session(p10=_FIRST, p20=_SECOND, p30=_FIRST)
    session.everyone[1].has_borne = True
    cgroups.enter(session, session.everyone[1])
    cgroups.enter_all(session)
    assert moves == [
        (20, {"pids": "/second", "": "/unified"}, {"pids": "/first", "": "/unified"}),
        # Not the one that has borne, which has been moved, and not the dead.
        (30, {"pids": "/first", "": "/unified"}, {"pids": "/second", "": "/unified"}),
    ]


def test_who_was_in_the_dumpers_groups_is_moved_nowhere(moves: Moves) -> None:
    cgroups.enter_all(_session(p10=_FIRST, p20=_OURS, p30=_OURS))
    assert moves == []


def test_threads_that_are_elsewhere_are_moved_where_threads_can_be(moves: Moves) -> None:
    cgroups.enter_threads(_session(p10=_FIRST, p11=_THREADS))
    assert moves == [(11, {"pids": "/threads"}, {"pids": "/first", "": "/unified"})]
    moves.clear()
    cgroups.enter_threads(_session(p10=_FIRST, p11=_FIRST))
    assert moves == []


def test_older_images_have_the_set_in_the_other_place(moves: Moves) -> None:
    session = _session(p10=_FIRST)
    session.everyone[1].core.tc.cg_set = _SECOND
    cgroups.enter(session, session.everyone[1])
    assert [whereto["pids"] for _, whereto, _ in moves] == ["/second"]


@pytest.mark.parametrize("why", ["ignored", "no image", "an empty image"])
def test_nothing_is_to_be_done(why: str) -> None:
    store = stored((Member(10),))
    if why != "no image":
        entry = m.cgroup_entry()
        if why == "ignored":
            entry.sets.add(id=_FIRST)
        store_one(store, kinds.CGROUP, filled(entry))
    policy = CgroupPolicy(mode=model.IGNORE if why == "ignored" else model.SOFT)
    session = session_of(store, RestoreOptions(cgroups=policy))
    cgroups.prepare(session)
    assert session.cgroups is None
    assert session.has_cgroups == (why == "an empty image")
    for step in (cgroups.enter_all, cgroups.enter_threads, cgroups.set_properties, cgroups.freeze):
        step(session)


def test_a_hierarchys_root_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the images say of it, and wherever --cgroup-root puts it."""
    from torpor.objects.cgroup import directories

    made: list[Any] = []
    monkeypatch.setattr(directories.Maker, "make", lambda self, controller, held: made.append(controller))
    store = stored((Member(10),))
    entry = m.cgroup_entry()
    entry.sets.add(id=_FIRST).ctls.add(name="pids", path="/top/one")
    top = entry.controllers.add(cnames=["pids"])
    root = top.dirs.add(dir_name="/")
    root.properties.add(name="pids.max", value="1")
    root.children.add(dir_name="one").properties.add(name="pids.max", value="2")
    entry.controllers.add(cnames=["cpu"]).dirs.add(dir_name="")
    store_one(store, kinds.CGROUP, filled(entry))
    session = session_of(store, RestoreOptions(cgroups=CgroupPolicy(mode=model.SOFT)))
    from torpor.engine.restore import reading

    reading.read_images(session)
    cgroups.prepare(session)
    assert session.cgroups is not None
    try:
        [controller] = made
        assert [len(head.properties) for head in controller.dirs] == [0]
        assert [each.value for each in controller.dirs[0].children[0].properties] == ["2"]
    finally:
        session.cgroups.yard.close()


def test_an_unknown_hierarchy_is_refused() -> None:
    store = stored((Member(10),))
    entry = m.cgroup_entry()
    entry.sets.add(id=_FIRST)
    entry.controllers.add(cnames=["../../etc"])
    store_one(store, kinds.CGROUP, filled(entry))
    with pytest.raises(ImageError, match="etc"):
        cgroups.prepare(session_of(store, RestoreOptions(cgroups=CgroupPolicy(mode=model.SOFT))))
