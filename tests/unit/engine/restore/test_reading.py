"""Images are read and checked as a whole before anything is made."""

from collections.abc import Callable

import pytest

from torpor.base.errors import RestoreError
from torpor.engine.options import RestoreOptions
from torpor.engine.restore import reading
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError, ImageMissing
from torpor.images.store import load_one, store_all, store_one
from torpor.images.stores.memory import MemStore
from torpor.objects.memory import room
from torpor.tracee import stub
from unit.engine.restore.making import Member, filled, session_of, stored

_FAMILY = (
    Member(10, threads=(11, 12)),
    Member(20, 10, sid=10, pgid=10),
    Member(21, 20, sid=10, pgid=20, is_dead=True),
    Member(30, 10, ids={"files_id": 10}),
)


def test_a_tree_with_threads_and_the_dead() -> None:
    session = session_of(stored(_FAMILY))
    reading.read_images(session)
    assert [(each.ns_pid, each.parent and each.parent.ns_pid) for each in session.everyone] == [
        (10, None), (20, 10), (21, 20), (30, 10),
    ]  # fmt: skip
    assert [thread.ns_tid for thread in session.root.threads] == [10, 11, 12]
    assert [each.ns_pid for each in session.alive] == [10, 20, 30]
    assert session.everyone[2].is_zombie and session.everyone[2].mm is None
    # One that shares its descriptors has no table of its own.
    assert set(session.descriptors) == {10, 20}
    assert [each.ns_pid for each in session.iter_owners("files_id")] == [10, 20]
    assert [thread.ns_tid for thread in session.iter_threads()] == [10, 11, 12, 20, 30]


def _inventory(**fields: object) -> Callable[[MemStore], None]:
    def change(store: MemStore) -> None:
        entry = load_one(store, kinds.INVENTORY)
        for name, value in fields.items():
            setattr(entry, name, value)
        store_one(store, kinds.INVENTORY, entry)

    return change


def _tree(*entries: m.pstree_entry) -> Callable[[MemStore], None]:
    return lambda store: store_all(store, kinds.PSTREE, entries)


def _entry(pid: int, ppid: int, *threads: int) -> m.pstree_entry:
    return m.pstree_entry(pid=pid, ppid=ppid, pgid=10, sid=10, threads=threads or (pid,))


def _core(change: Callable[[m.core_entry], None]) -> Callable[[MemStore], None]:
    def stored_again(store: MemStore) -> None:
        core = load_one(store, kinds.CORE, 10)
        change(core)
        store_one(store, kinds.CORE, core, 10)

    return stored_again


def _of_a_pre_dump(store: MemStore) -> None:
    _inventory(pre_dump_mode=0)(store)
    del store.images["pstree.img"]


@pytest.mark.parametrize(
    ("damage", "error", "said"),
    [
        (_inventory(img_version=77), ImageError, "version 77 is not known"),
        (_of_a_pre_dump, ImageMissing, "of a pre-dump"),
        (_inventory(torpor_page_bytes=16384), RestoreError, "pages of 16384 bytes, and this kernel has"),
        (_tree(), ImageError, "holds no process"),
        (_tree(_entry(10, 0), _entry(10, 10)), ImageError, "pid 10 twice"),
        (_tree(_entry(10, 0), _entry(20, 99)), ImageError, "pid 20 has no parent 99"),
        (_tree(_entry(10, 0), _entry(20, 20)), ImageError, "pid 20 has no parent 20"),
        (_tree(_entry(20, 0), _entry(10, 30), _entry(30, 10)), ImageError, "pid 10 has no parent 30"),
        (_tree(_entry(10, 0, 11, 10)), ImageError, "the first thread of pid 10 is another"),
        (_tree(_entry(10, 0, 10, 77)), ImageMissing, "core-77"),
        (_core(lambda core: core.ClearField("tc")), ImageError, "says nothing of the process"),
        (_core(lambda core: setattr(core, "mtype", m.core_entry.AARCH64)), ImageError, "of another architecture"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_named(damage: Callable[[MemStore], None], error: type, said: str) -> None:
    store = stored((Member(10, threads=(11,)), Member(20, 10), Member(30, 10)))
    damage(store)
    with pytest.raises(error, match=said):
        reading.read_images(session_of(store))


@pytest.fixture
def no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours stays what it is."""
    monkeypatch.setattr(reading, "raise_descriptor_limit", lambda: None)


@pytest.mark.usefixtures("no_limit")
def test_what_is_ours_lies_where_none_of_them_has_anything() -> None:
    lowest = stub.find_area([])
    vmas = ((lowest - 0x1000, lowest + 0x1000), (lowest + 0x200000, lowest + 0x600000))
    session = session_of(
        stored((Member(10, fds=(0, 1, 2, 3, 5), vmas=vmas[:1]), Member(20, 10, fds=(4, 7), vmas=vmas[1:])))
    )
    reading.read_images(session)
    reading.plan(session)
    try:
        assert session.channel.far_number == 6
        assert all(session.area + stub.AREA_SIZE <= start or end <= session.area for start, end in vmas)
        assert session.context.processes == session.everyone
    finally:
        session.close()


@pytest.mark.usefixtures("no_limit")
def test_more_mappings_than_this_machine_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "max_map_count", lambda: 100)
    vmas = [(at * 0x2000 + 0x10000, at * 0x2000 + 0x11000) for at in range(120)]
    session = session_of(stored((Member(10, vmas=vmas),)))
    reading.read_images(session)
    with pytest.raises(RestoreError, match="pid 10 has 120 mappings, and this machine allows 100") as caught:
        reading.plan(session)
    assert "vm.max_map_count=1120" in caught.value.describe()


@pytest.mark.usefixtures("no_limit")
def test_a_file_is_opened_under_another_name() -> None:
    """What the images knew of the other one says nothing of it: its size, its mount."""
    files = [
        m.file_entry(
            type=m.fd_types.REG, id=number, reg=filled(m.reg_file_entry(id=number, name=name, size=5, mnt_id=9))
        )
        for number, name in ((1, "/old"), (2, "/same"))
    ]
    session = session_of(stored((Member(10),), files), RestoreOptions(renames=(("/old", "/new"),)))
    reading.read_images(session)
    reading.plan(session)
    try:
        one, two = (session.context.files.entries[number].reg for number in (1, 2))
        assert (one.name, one.HasField("size"), one.mnt_id) == ("/new", False, -1)
        assert (two.name, two.size, two.mnt_id) == ("/same", 5, 9)
    finally:
        session.close()
