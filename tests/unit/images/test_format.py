"""The container: every kind there and back, and whatever damage ends in ImageError."""

from __future__ import annotations

import contextlib
import io
import random
import struct

import pytest

from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.format import Entry, encode_image, read_entries, write_entry
from torpor.images.kinds import ImageKind
from unit.images.filling import entries_of

WITH_ENTRIES = [kind for kind in kinds.ALL if kind.magic is not None]


def read(data: bytes, kind: ImageKind[m.Message]) -> list[Entry[m.Message]]:
    return list(read_entries(io.BytesIO(data), kind))


def bare(entries: list[Entry[m.Message]]) -> list[object]:
    return [(e.message, e.payload, bare(list(e.parts))) for e in entries]


@pytest.mark.parametrize("kind", WITH_ENTRIES, ids=lambda kind: kind.name)
def test_round_trip(kind: ImageKind[m.Message]) -> None:
    written = entries_of(kind)
    data = encode_image(kind, written)
    found = read(data, kind)
    assert bare(found) == bare(written)
    assert encode_image(kind, found) == data


@pytest.mark.parametrize("kind", WITH_ENTRIES, ids=lambda kind: kind.name)
def test_truncation_anywhere_is_an_image_error(kind: ImageKind[m.Message]) -> None:
    written = entries_of(kind)
    data = encode_image(kind, written)
    # Cut between two entries an image is a shorter image: no reader can tell.
    whole = {len(encode_image(kind, written[:n])) for n in range(len(written))}
    for n_bytes in set(range(len(data))) - whole:
        with pytest.raises(ImageError):
            read(data[:n_bytes], kind)


def test_an_unchunked_ghost_is_the_rest_of_the_file() -> None:
    ghost = Entry(m.ghost_file_entry(uid=0, gid=0, mode=0o100600, size=5), b"bytes")
    assert bare(read(encode_image(kinds.GHOST_FILE, [ghost]), kinds.GHOST_FILE)) == bare([ghost])


def test_mutations_raise_nothing_else() -> None:
    chance = random.Random(20)
    images = [(kind, encode_image(kind, entries_of(kind))) for kind in WITH_ENTRIES]
    for _ in range(4000):
        kind, data = chance.choice(images)
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(8, len(damaged)) if len(damaged) > 8 else 0
            match chance.randrange(3):
                case 0:
                    damaged[at] = chance.randrange(256)
                case 1:
                    damaged[at:at] = chance.randbytes(chance.randint(1, 8))
                case _:
                    del damaged[at : at + chance.randint(1, 8)]
        with contextlib.suppress(ImageError):
            read(bytes(damaged), kind)


def test_errors_tell_file_offset_expected_and_found() -> None:
    data = encode_image(kinds.FS, [m.fs_entry(cwd_id=1, root_id=2)])
    with pytest.raises(ImageError, match=r"core-7.img: at byte 4: .*CORE.*0x55053847 expected, 0x51403912.*FS.*found"):
        list(read_entries(io.BytesIO(data), kinds.CORE, "core-7.img"))
    with pytest.raises(ImageError, match="at byte 16: 3 bytes too many"):
        read(data + b"abc", kinds.FS)
    with pytest.raises(ImageError, match="needs 100 bytes, 2 are left"):
        read(data + struct.pack("<I", 100) + b"ab", kinds.FS)
    with pytest.raises(ImageError, match="an entry of 4294967295 bytes"):
        read(data + b"\xff" * 4, kinds.FS)
    with pytest.raises(ImageError, match="raw image"):
        read(data, kinds.PAGES)


def test_a_huge_payload_is_not_believed() -> None:
    for n_bytes in (1 << 62, 1 << 29):
        shm = m.ipc_shm_entry(size=n_bytes)
        shm.desc.MergeFromString(
            m.ipc_desc_entry(key=0, uid=0, gid=0, cuid=0, cgid=0, mode=0, id=0).SerializeToString()
        )
        body = shm.SerializeToString()
        start = encode_image(kinds.IPCNS_SHM, [])
        with pytest.raises(ImageError):
            read(start + struct.pack("<I", len(body)) + body + b"few", kinds.IPCNS_SHM)


def test_a_payload_of_another_length_is_not_written() -> None:
    with pytest.raises(ImageError, match="payload of 4 bytes, it has 3"):
        write_entry(io.BytesIO(), kinds.PIPES_DATA, Entry(m.pipe_data_entry(pipe_id=1, bytes=4), b"abc"))
