"""Whoever is interrupted while memory is copied hears of that, and not that a buffer was still in use."""

import os
from collections.abc import Sequence

import pytest

from torpor.images import kinds
from torpor.images.pages import StoreSink
from torpor.images.stores.memory import MemPagesWriter, MemStore
from torpor.kernel.interrupts import Interrupted
from torpor.objects.memory import contents, segments


class _Interrupting(MemPagesWriter):
    supports_write_at = False

    def append(self, buffers: Sequence[memoryview]) -> None:
        parts = [view[:10] for view in buffers]
        raise Interrupted(len(parts))


class _Store(MemStore):
    def pages_writer(self, name: str, n_bytes: int | None = None) -> MemPagesWriter:
        return _Interrupting(bytearray())


def test_while_it_is_written() -> None:
    with pytest.raises(Interrupted), StoreSink(_Store()).open(kinds.PAGEMAP, 1, 8192) as stream:
        contents.copy([(4096, 12288)], lambda pieces, into: None, stream)


class _Reader:
    size = 1 << 20

    def read_at(self, offset: int, into: memoryview) -> None:
        part = into[:10]
        raise Interrupted(len(part))

    def close(self) -> None:
        pass


def test_while_a_segment_is_filled() -> None:
    fd = os.memfd_create("segment")
    try:
        os.ftruncate(fd, 8192)
        with pytest.raises(Interrupted):
            segments._fill(fd, 4096, 0, 8192, _Reader(), 0)
    finally:
        os.close(fd)
