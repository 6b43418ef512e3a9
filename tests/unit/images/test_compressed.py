"""Compressed pages: read at any place, by others as well, and not believed further than they hold."""

from __future__ import annotations

import random
import struct

import pytest

from torpor.images import zstd
from torpor.images.errors import ImageError
from torpor.images.stores.compressed import ZstdPagesReader, ZstdStore
from torpor.images.stores.memory import MemPagesReader, MemStore
from torpor.images.zstd import ZstdReader

_NAME, _PACKED = "pages-1.img", "pages-1.img.zst"
_BLOCK = 1 << 19
_DATA = random.Random(5).randbytes(_BLOCK) + bytes(3 * _BLOCK) + b"the end" * 1000
_FOOT = struct.Struct("<IBI")


def _packed(data: bytes = _DATA) -> tuple[MemStore, bytearray]:
    below = MemStore()
    writer = ZstdStore(below).pages_writer(_NAME)
    writer.append([memoryview(data)])
    writer.close()
    return below, below.images[_PACKED]


def _read(packed: bytes, start: int = 0, n_bytes: int | None = None) -> bytes:
    reader = ZstdPagesReader(MemPagesReader(bytearray(packed), _PACKED), _NAME)
    piece = bytearray(reader.size - start if n_bytes is None else n_bytes)
    reader.read_at(start, memoryview(piece))
    return bytes(piece)


def _table(entries: list[tuple[int, int]], flags: int = 0) -> bytes:
    form = "<III" if flags else "<II"
    body = b"".join(struct.pack(form, *entry, *([7] if flags else [])) for entry in entries)
    body += _FOOT.pack(len(entries), flags, 0x8F92EAB1)
    return struct.pack("<II", 0x184D2A5E, len(body)) + body


def test_any_reader_of_zstd_finds_the_image_in_it() -> None:
    below, packed = _packed()
    assert len(packed) < _BLOCK + 10_000 and len(_DATA) > 4 * _BLOCK
    with below.open_read(_PACKED) as stream:
        reader, found = ZstdReader(stream), b""
        while piece := reader.read(1 << 20):
            found += piece
        reader.close()
    assert found == _DATA


def test_it_says_where_its_blocks_are_as_the_seekable_format_does() -> None:
    _, packed = _packed()
    n_blocks, flags, magic = _FOOT.unpack(packed[-9:])
    assert (n_blocks, flags, magic) == (5, 0, 0x8F92EAB1)
    head = len(packed) - 9 - 8 * n_blocks - 8
    assert struct.unpack_from("<II", packed, head) == (0x184D2A5E, 8 * n_blocks + 9)
    entries = list(struct.iter_unpack("<II", packed[head + 8 : -9]))
    assert [plain for _, plain in entries] == [_BLOCK] * 4 + [len(_DATA) - 4 * _BLOCK]
    assert sum(each for each, _ in entries) == head


def test_of_the_rest_nothing_is_read() -> None:
    _, packed = _packed()
    read: list[int] = []

    class Counting(MemPagesReader):
        def read_at(self, offset: int, into: memoryview) -> None:
            read.append(into.nbytes)
            super().read_at(offset, into)

    reader = ZstdPagesReader(Counting(packed, _PACKED), _NAME)
    del read[:]
    for start in (_BLOCK, _BLOCK + 4096, 2 * _BLOCK - 4096):
        reader.read_at(start, memoryview(bytearray(4096)))
    assert len(read) == 1 and read[0] < 1000


def test_blocks_are_put_in_order() -> None:
    below = MemStore()
    writer = ZstdStore(below).pages_writer(_NAME)
    places = [writer.reserve(1000) for _ in range(5)]
    for number in (4, 2, 0, 1):
        writer.write_at(places[number], [memoryview(bytes([number]) * 400), memoryview(bytes([number]) * 600)])
    writer.close()
    # What nobody has written to is of zeroes, as in a file.
    assert _read(bytes(below.images[_PACKED])) == b"".join(bytes([n % 3 if n == 3 else n]) * 1000 for n in range(5))


def test_a_table_with_sums_is_read_too() -> None:
    frames = [zstd.compress(b"a" * 1000), zstd.compress(b"b" * 500)]
    table = _table([(len(frames[0]), 1000), (len(frames[1]), 500)], flags=0x80)
    assert _read(b"".join(frames) + table, 900, 200) == b"a" * 100 + b"b" * 100


def test_a_bomb_is_no_longer_than_it_says() -> None:
    frame = zstd.compress(bytes(64 << 20))
    for told in (4096, 8 << 20):
        with pytest.raises(ImageError, match="damaged: block 0"):
            _read(frame + _table([(len(frame), told)]))
    with pytest.raises(ImageError, match="not believed"):
        _read(frame + _table([(len(frame), 64 << 20)]))


def test_a_block_shorter_than_it_says_is_refused() -> None:
    frame = zstd.compress(b"short")
    with pytest.raises(ImageError, match="damaged: block 0"):
        _read(frame + _table([(len(frame), 4096)]))


def test_a_table_that_cannot_be_is_refused() -> None:
    frame = zstd.compress(b"a" * 1000)
    good = frame + _table([(len(frame), 1000)])
    assert _read(good) == b"a" * 1000
    for bad in (
        b"",
        frame,
        good[:-1],
        good[1:],
        good[:-9] + _FOOT.pack(0xFFFFFFFF, 0, 0x8F92EAB1),
        good[:-9] + _FOOT.pack(1, 3, 0x8F92EAB1),
        frame + _table([(len(frame) + 1, 1000)]),
        frame + _table([(len(frame), 1000), (0xFFFFFFFF, 1)]),
        frame + _table([]),
        good.replace(struct.pack("<I", 0x184D2A5E), struct.pack("<I", 0x184D2A50)),
    ):
        with pytest.raises(ImageError, match=r"pages-1\.img: damaged"):
            _read(bad)


def test_whatever_byte_is_changed_ends_in_an_error_of_ours() -> None:
    data = random.Random(2).randbytes(3000) + bytes(20_000)
    _, packed = _packed(data)
    rng = random.Random(9)
    for _ in range(500):
        changed = bytearray(packed)
        for _ in range(rng.choice((1, 1, 4))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        try:
            # But for what zstd itself passes over there is a sum in each block.
            assert _read(bytes(changed)) == data
        except ImageError as error:
            assert "damaged" in str(error)


def test_what_lies_beside_it_uncompressed_counts() -> None:
    below, _ = _packed(b"compressed")
    store = ZstdStore(below)
    with below.open_write(_NAME) as stream:
        stream.write(b"plain")
    with store.open_read(_NAME) as stream:
        assert stream.read() == b"plain"
    assert store.names() == [_NAME]
