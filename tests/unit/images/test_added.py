"""Added fields: out of CRIU's images, into files beside them, and back; after changes too."""

from __future__ import annotations

import io
from typing import Any

import pytest

from torpor.images import kinds
from torpor.images import messages as m
from torpor.images._descriptors import HOLDERS
from torpor.images.added import SUFFIX, may_hold
from torpor.images.errors import ImageError
from torpor.images.format import Entry, encode_image, read_entries, read_messages
from torpor.images.kinds import ImageKind
from torpor.images.store import iter_entries, load_all, store_all
from torpor.images.stores.memory import MemStore
from unit.images.filling import entries_of

KINDS = [kind for kind in kinds.ALL if may_hold(kind)]
#: Written entry by entry, where nothing is moved.
_WRITTEN_DIRECTLY = {"ghost_file_entry", "ghost_chunk_entry", "pagemap_head", "pagemap_entry", "ipc_msg"}


def added(message: Any) -> list[str]:
    """The names of the added fields in a message, those of submessages included."""
    found = []
    for field, value in message.ListFields():
        if field.number >= 10000:
            found.append(field.name)
        elif hasattr(value, "add"):
            found += [name for each in value for name in added(each)]
        elif hasattr(value, "ListFields"):
            found += added(value)
    return found


def ident_of(kind: ImageKind[m.Message]) -> int | None:
    return 7 if "%" in kind.file_pattern else None


def stored(kind: ImageKind[m.Message], entries: list[Any]) -> tuple[MemStore, str]:
    store = MemStore()
    store_all(store, kind, entries, ident_of(kind))
    return store, kind.file_name(ident_of(kind))


def raw(store: MemStore, kind: ImageKind[Any], name: str) -> list[Any]:
    """The messages as another program sees them."""
    return list(read_messages(io.BytesIO(store.images[name]), kind, name))


def files(*idents: int) -> list[m.file_entry]:
    """Event descriptors, each with an added field two levels in."""
    made = []
    for ident in idents:
        entry = m.file_entry(type=m.fd_types.EVENTFD, id=ident)
        entry.efd.id, entry.efd.flags, entry.efd.counter, entry.efd.torpor_semaphore = ident, 0, 1, True
        entry.efd.fown.uid = entry.efd.fown.euid = entry.efd.fown.signum = 0
        entry.efd.fown.pid_type = entry.efd.fown.pid = 0
        made.append(entry)
    return made


def test_what_is_written_directly_holds_none() -> None:
    assert not _WRITTEN_DIRECTLY & HOLDERS.keys()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_there_and_back(kind: ImageKind[m.Message]) -> None:
    entries = entries_of(kind)
    before = [added(entry.message) for entry in entries]
    assert all(before)
    data = encode_image(kind, entries)
    store, name = stored(kind, entries)
    assert not any(added(message) for message in raw(store, kind, name))
    assert encode_image(kind, list(read_entries(io.BytesIO(store.images[name]), kind))) == bytes(store.images[name])
    assert load_all(store, kind, ident_of(kind)) == [entry.message for entry in entries]
    found = list(iter_entries(store, kind, ident_of(kind)))
    assert [(entry.message, entry.payload) for entry in found] == [(each.message, each.payload) for each in entries]
    assert encode_image(kind, entries) == data, "storing changes no message"


def test_an_image_without_added_fields_stands_alone() -> None:
    entry = m.file_entry(type=m.fd_types.UND, id=1)
    store, _ = stored(kinds.FILES, [entry])
    assert store.names() == ["files.img"]


def test_a_later_image_without_any_is_not_given_those_of_an_earlier_one() -> None:
    store, _ = stored(kinds.FILES, files(1))
    entry = files(1)[0]
    entry.efd.ClearField("torpor_semaphore")
    store_all(store, kinds.FILES, [entry])
    assert load_all(store, kinds.FILES) == [entry]


def test_fields_that_stand_in_the_image_are_read() -> None:
    store = MemStore()
    store.images["files.img"] = bytearray(encode_image(kinds.FILES, files(1, 2)))
    assert load_all(store, kinds.FILES) == files(1, 2)


def test_entries_may_go_come_and_change_places(capfd: pytest.CaptureFixture[str]) -> None:
    store, name = stored(kinds.FILES, files(1, 2, 3, 4))
    one, two, _, four = raw(store, kinds.FILES, name)
    two.efd.counter = 55
    new = m.file_entry(type=m.fd_types.UND, id=9)
    store.images[name] = bytearray(encode_image(kinds.FILES, [four, new, two, one]))
    found = load_all(store, kinds.FILES)
    assert [(each.id, each.efd.counter, each.efd.torpor_semaphore) for each in found] == [
        (4, 1, True),
        (9, 0, False),
        (2, 55, True),
        (1, 1, True),
    ]


def test_mappings_may_go() -> None:
    mm: Any = entries_of(kinds.MM)[0].message
    del mm.vmas[:]
    for start in range(3):
        mm.vmas.add(start=start << 12, end=(start + 1) << 12, pgoff=0, shmid=0, prot=0, flags=0, status=1, fd=-1)
    mm.vmas[2].torpor_name = "named"
    store, name = stored(kinds.MM, [mm])
    (seen,) = raw(store, kinds.MM, name)
    del seen.vmas[0]
    store.images[name] = bytearray(encode_image(kinds.MM, [seen]))
    (found,) = load_all(store, kinds.MM, 7)
    assert [vma.torpor_name for vma in found.vmas] == ["", "named"]


def packets(n_packets: int) -> list[Entry[Any]]:
    """The second has an added field; nothing tells two of them apart."""
    made = [m.sk_packet_entry(id_for=1, length=1) for _ in range(n_packets)]
    made[1].torpor_uid = 5
    return [Entry(each, b"x") for each in made]


def test_entries_without_a_key_are_known_by_their_place() -> None:
    store, name = stored(kinds.by_name("SK_QUEUES"), packets(3))
    kind = kinds.by_name("SK_QUEUES")
    assert [entry.message.torpor_uid for entry in iter_entries(store, kind)] == [0, 5, 0]  # type: ignore[attr-defined]
    left = list(read_entries(io.BytesIO(store.images[name]), kind))[1:]
    store.images[name] = bytearray(encode_image(kind, left))
    with pytest.raises(ImageError, match="had 3 entries"):
        load_all(store, kind)


def test_an_entry_that_became_another_is_told() -> None:
    store, name = stored(kinds.FILES, files(1))
    store.images[name] = bytearray(encode_image(kinds.FILES, [m.file_entry(type=m.fd_types.UND, id=1)]))
    with pytest.raises(ImageError, match="efd is gone"):
        load_all(store, kinds.FILES)


def test_damage_is_an_image_error() -> None:
    store, name = stored(kinds.FILES, files(1, 2))
    whole = bytes(store.images[name + SUFFIX])
    for at in range(len(whole)):
        store.images[name + SUFFIX] = bytearray(whole[:at])
        try:
            load_all(store, kinds.FILES)
        except ImageError:
            continue
        else:
            store.images[name + SUFFIX] = bytearray(whole[:at] + b"\xff" + whole[at + 1 :])
            try:
                load_all(store, kinds.FILES)
            except ImageError:
                continue
