"""LZ4 frames, by the package that not everybody has."""

import io
import random
from importlib.util import find_spec

import pytest

from harness.skips import missing
from torpor.images.errors import ImageError
from torpor.images.lz4 import Lz4Reader, Lz4Writer
from torpor.images.tarstream import decompressed


@pytest.fixture(autouse=True)
def _package() -> None:
    if find_spec("lz4") is None:
        missing("the package lz4 (pip install lz4, Debian: python3-lz4)")


def _packed(pieces: list[bytes]) -> bytes:
    made = io.BytesIO()
    writer = Lz4Writer(made)
    for piece in pieces:
        assert writer.write(memoryview(piece)) == len(piece)
    writer.close()
    return made.getvalue()


class _Trickle(io.BytesIO):
    """Gives less than it is asked for."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(1000, size or 0))


def _unpacked(data: bytes) -> bytes:
    source = _Trickle(data)
    with decompressed(source) as (reader, how):
        assert how == "lz4"
        found = b""
        while piece := reader.read(700_000):
            found += piece
    # Frames of a link have an end of their own, which is to be met.
    assert source.tell() == len(data)
    return found


def test_what_was_written_is_read() -> None:
    rng = random.Random(3)
    pieces = [bytes(3 << 20), rng.randbytes(100_000), b"", b"x", bytes(range(256)) * 5000]
    packed = _packed(pieces)
    assert _unpacked(packed) == b"".join(pieces) and len(packed) < 200_000
    assert _unpacked(_packed([])) == b""


def test_what_is_damaged_is_refused() -> None:
    packed = _packed([bytes(1 << 20), random.Random(5).randbytes(5000)])
    for bad in (packed[:-1], packed[:5000], packed + b"more", packed[:4000] + b"XX" + packed[4002:]):
        with pytest.raises(ImageError, match="lz4 stream"):
            _unpacked(bad)


def test_much_made_of_little_does_not_come_at_once() -> None:
    reader = Lz4Reader(io.BytesIO(_packed([bytes(64 << 20)])))
    assert len(reader.read(1 << 30)) <= 1 << 20
