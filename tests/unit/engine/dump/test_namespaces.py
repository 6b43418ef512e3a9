"""Namespaces that a tree has for itself: which of them can be carried, told from their numbers alone."""

import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from torpor.base.errors import RefusedError
from torpor.base.ids import Pid
from torpor.engine.dump import externals, namespaces
from torpor.engine.dump.ids import IdAllocator
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import load_one
from torpor.images.stores.memory import MemStore
from torpor.kernel import idmap
from torpor.objects.model import DumpProcess
from torpor.objects.ns.table import NAMESPACES
from unit.engine.restore.making import OUTSIDE

_OWN = 50
_NONE = m.task_kobj_ids_entry(**OUTSIDE)


def _process(pid: int = 0, ns_pid: int = 1, *, is_zombie: bool = False, **ids: int) -> DumpProcess:
    """Of ours, so that there is something in /proc; with these ids in place of the dumper's."""
    made = SimpleNamespace(
        pid=Pid(pid or os.getpid()), ns_pid=ns_pid, is_zombie=is_zombie,
        ids=m.task_kobj_ids_entry(**(OUTSIDE | ids)), describe=lambda: f"pid {ns_pid} (x)", idmaps=None,
    )  # fmt: skip
    return cast("DumpProcess", made)


def _of(kind: str) -> Any:
    """Another namespace of that kind."""
    return {f"{kind}_ns_id": 60}


def test_those_that_may_differ_within_a_tree() -> None:
    inner = _process(ns_pid=2, mnt_ns_id=60, net_ns_id=61, pid_ns_id=_OWN, uts_ns_id=_OWN)
    namespaces.check([_process(pid_ns_id=_OWN, uts_ns_id=_OWN), inner], _NONE, ())


@pytest.mark.parametrize("kind", [kind.link for kind in NAMESPACES if not kind.nests])
def test_those_that_may_not(kind: str) -> None:
    inner = _process(ns_pid=2, **_of(kind))
    with pytest.raises(RefusedError, match=rf"pid 2 \(x\) has another {kind} namespace than pid 1 \(x\)"):
        namespaces.check([_process(), inner], _NONE, ())
    # The dead have left theirs.
    namespaces.check([_process(), _process(ns_pid=2, is_zombie=True, **_of(kind))], _NONE, ())


def test_a_part_of_a_pid_namespace() -> None:
    with pytest.raises(RefusedError, match="is not the first process of its pid namespace"):
        namespaces.check([_process(ns_pid=7, pid_ns_id=_OWN)], _NONE, ())
    # It is not to be made again if somebody else answers for it.
    number = os.stat("/proc/self/ns/pid").st_ino
    namespaces.check([_process(ns_pid=7, pid_ns_id=_OWN)], _NONE, (f"pid[{number}]:theirs",))


def test_where_children_are_to_be_no_image_says(monkeypatch: pytest.MonkeyPatch) -> None:
    links = {"pid": "pid:[1]", "pid_for_children": "pid:[2]", "time": "time:[3]", "time_for_children": "time:[3]"}
    monkeypatch.setattr(os, "readlink", lambda path: links[path.rpartition("/")[2]])
    with pytest.raises(RefusedError, match="another pid namespace for its children than its own"):
        namespaces.check([_process()], _NONE, ())
    links["pid_for_children"] = links["pid"]
    namespaces.check([_process()], _NONE, ())
    links["time_for_children"] = "time:[4]"
    with pytest.raises(RefusedError, match="another time namespace for its children"):
        namespaces.check([_process()], _NONE, ())


def test_ids_are_mapped_where_the_user_namespace_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    maps: Any = object()
    monkeypatch.setattr(idmap, "read_idmaps", lambda pid: maps)
    everyone = [_process(), _process(ns_pid=2)]
    namespaces.read_idmaps(everyone, _NONE)
    assert [process.idmaps for process in everyone] == [None, None]
    everyone[0].ids.user_ns_id = _OWN
    namespaces.read_idmaps(everyone, _NONE)
    assert [process.idmaps for process in everyone] == [maps, maps]


# -- those that somebody else answers for --------------------------------------------------------------------


def test_an_external_one_is_known_by_its_inode() -> None:
    kind = next(kind for kind in NAMESPACES if kind.link == "net")
    number = os.stat("/proc/self/ns/net").st_ino
    pid = Pid(os.getpid())
    assert externals.key_of(kind, pid, (f"net[{number + 1}]:other", f"net[{number}]:the:pods")) == "the:pods"
    assert externals.key_of(kind, pid, (f"uts[{number}]:other", "net[]:x")) is None


def test_an_external_one_is_a_key_in_its_image() -> None:
    store = MemStore()
    by_link = {kind.link: kind for kind in NAMESPACES}
    externals.dump(store, by_link["net"], 7, "pods")
    externals.dump(store, by_link["pid"], 8, "hosts")
    assert load_one(store, kinds.NETNS, 7).ext_key == "pods"
    assert load_one(store, kinds.PIDNS, 8).ext_key == "hosts"
    with pytest.raises(RefusedError, match="a uts namespace cannot be external"):
        externals.dump(store, by_link["uts"], 9, "x")


# -- numbers -------------------------------------------------------------------------------------------------


def test_the_same_namespace_has_the_same_number() -> None:
    allocator = IdAllocator()
    ours, same = m.task_kobj_ids_entry(), m.task_kobj_ids_entry()
    allocator.namespaces_of("self", ours)
    allocator.namespaces_of(Pid(os.getpid()), same)
    assert ours == same
    numbers = [value for _, value in ours.ListFields()]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    assert allocator.namespace("net", "net:[99999]") == len(numbers) + 1
