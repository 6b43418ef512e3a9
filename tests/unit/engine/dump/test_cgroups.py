"""Control groups of a dump: read where some task is elsewhere than we are, and only then in an image."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from torpor.base.errors import RefusedError, UsageError
from torpor.base.ids import Pid
from torpor.engine.dump import cgroups
from torpor.engine.dump.cgroups import CgroupDump
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import load_one
from torpor.images.stores.memory import MemStore
from torpor.objects.cgroup import directories, membership, model
from torpor.objects.cgroup.model import CgroupPolicy
from torpor.objects.model import DumpProcess

_SELF = b"3:freezer:/\n2:pids:/\n0::/\n"
_OTHER = b"3:freezer:/cold\n2:pids:/jobs/one\n0::/\n"


class Groups:
    """A file of /proc for each task, and trees of groups that change when a test says so."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"/proc/self/cgroup": _SELF}
        self.read: list[tuple[str, str]] = []
        self.changed: set[str] = set()
        self.gone: set[str] = set()

    def read_bytes(self, path: str) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path]

    def snapshot(self, hierarchy: str) -> Any:
        heads: dict[str, m.cgroup_dir_entry] = {}

        def read(path: str, yard: object, table: object) -> None:
            if path in self.gone:
                raise OSError(2, "No such file or directory")
            self.read.append((hierarchy, path))
            heads[path] = m.cgroup_dir_entry(dir_name=path)

        return SimpleNamespace(
            hierarchy=hierarchy,
            is_threaded=False,
            heads=heads,
            read=read,
            has_changed=lambda yard: hierarchy in self.changed,
            leave_out_others=lambda members, yard: None,
        )


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> Groups:
    made = Groups()
    monkeypatch.setattr(cgroups, "read_bytes", made.read_bytes)
    monkeypatch.setattr(membership, "read_bytes", made.read_bytes)
    monkeypatch.setattr(directories, "Snapshot", made.snapshot)
    monkeypatch.setattr(membership, "check_reachable", lambda members, whose: None)
    return made


def _tree(*tids: int) -> list[DumpProcess]:
    ids = m.task_kobj_ids_entry(cgroup_ns_id=1)
    threads = [SimpleNamespace(tid=tid, core=m.core_entry()) for tid in tids]
    return [cast("DumpProcess", SimpleNamespace(pid=Pid(tids[0]), threads=threads, ids=ids, pidfd=None))]


def _dumped(
    groups: Groups, *texts: bytes, made: CgroupDump | None = None
) -> tuple[MemStore, m.inventory_entry, list[int]]:
    """One process with a thread for each text; the images, and the sets of the threads."""
    for tid, text in enumerate(texts, 100):
        groups.files[f"/proc/100/task/{tid}/cgroup"] = text
    groups.files["/proc/100/cgroup"] = texts[0]
    dump = made or CgroupDump(CgroupPolicy(mode=model.SOFT), Pid(100))
    tree = _tree(*range(100, 100 + len(texts)))
    dump.ask(tree, m.task_kobj_ids_entry(cgroup_ns_id=1))
    store, inventory = MemStore(), m.inventory_entry(img_version=2)
    dump.write(store, inventory)
    return store, inventory, [thread.core.thread_core.cg_set for thread in tree[0].threads]


def test_who_is_where_we_are_has_no_image(groups: Groups) -> None:
    store, inventory, sets = _dumped(groups, _SELF, _SELF)
    assert sets == [membership.OURS] * 2 and inventory.root_cg_set == membership.OURS
    assert store.names() == [] and groups.read == []


def test_each_combination_is_a_set(groups: Groups) -> None:
    store, _, sets = _dumped(groups, _OTHER, _OTHER, _SELF)
    assert sets[0] == sets[1] != sets[2] == membership.OURS
    entry = load_one(store, kinds.CGROUP)
    [found] = entry.sets
    assert found.id == sets[0]
    assert {ctl.name: ctl.path for ctl in found.ctls} == {"freezer": "/cold", "pids": "/jobs/one", "": "/"}
    assert {each.cnames[0]: each.dirs[0].dir_name for each in entry.controllers} == {
        "freezer": "/cold", "pids": "/jobs/one", "": "/",
    }  # fmt: skip


def test_what_was_read_before_the_freeze_is_not_read_again(groups: Groups) -> None:
    groups.files["/proc/100/cgroup"] = _OTHER
    dump = CgroupDump(CgroupPolicy(mode=model.SOFT), Pid(100))
    before = list(groups.read)
    assert ("pids", "/jobs/one") in before
    _dumped(groups, _OTHER, made=dump)
    assert groups.read == before


def test_what_has_changed_meanwhile_is(groups: Groups) -> None:
    groups.files["/proc/100/cgroup"] = _OTHER
    dump = CgroupDump(CgroupPolicy(mode=model.SOFT), Pid(100))
    groups.read.clear()
    groups.changed.add("pids")
    _dumped(groups, _OTHER, made=dump)
    assert groups.read == [("pids", "/jobs/one")]


def test_only_the_controllers_that_are_asked_for(groups: Groups) -> None:
    groups.files["/proc/100/cgroup"] = _OTHER
    policy = CgroupPolicy(mode=model.SOFT, controllers=("pids",))
    store, _, _ = _dumped(groups, _OTHER, made=CgroupDump(policy, Pid(100)))
    assert [list(each.cnames) for each in load_one(store, kinds.CGROUP).controllers] == [["pids"]]


def test_a_paused_tree_is_paused_in_the_image(groups: Groups) -> None:
    groups.files["/proc/100/cgroup"] = _OTHER
    dump = CgroupDump(CgroupPolicy(mode=model.SOFT), Pid(100))
    dump.stopped_by(cast("Any", SimpleNamespace(state="FROZEN", was_frozen=True)))
    store, _, _ = _dumped(groups, _OTHER, made=dump)
    properties = {
        each.cnames[0]: [(one.name, one.value) for one in each.dirs[0].properties]
        for each in load_one(store, kinds.CGROUP).controllers
    }
    assert properties == {"freezer": [("freezer.state", "FROZEN")], "pids": [], "": []}


def test_a_group_that_is_gone_is_named(groups: Groups) -> None:
    groups.gone.add("/jobs/one")
    with pytest.raises(RefusedError, match=r"/jobs/one.* cannot be read: No such file") as caught:
        _dumped(groups, _OTHER)
    assert "--manage-cgroups=ignore" in caught.value.describe()


def test_one_that_has_ended_is_told_by_whoever_stops_it(groups: Groups) -> None:
    CgroupDump(CgroupPolicy(mode=model.SOFT), Pid(4711))
    assert groups.read == []


def test_a_file_of_properties_is_read_before_the_freeze(groups: Groups, tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    with pytest.raises(UsageError, match=f"--cgroup-props-file {missing}: No such file"):
        CgroupDump(CgroupPolicy(mode=model.SOFT, props_file=missing), Pid(os.getpid()))
