"""Memory on its way into images: of whom, by which sink, in any order or in one; and what sinks can be made of it."""

from __future__ import annotations

import _thread
import ctypes
import fcntl
import mmap
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from torpor.base.errors import TorporError
from torpor.base.ids import Pid
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.kinds import ImageKind
from torpor.images.pagemap import PAGE_BYTES, PE_LAZY, PE_PARENT, PE_PRESENT, PageRun, load_pagemap
from torpor.images.pages import BasePageStream, Contents, PageSink, PageStream, Piece, StoreSink, open_contents
from torpor.images.stores.memory import MemPagesWriter, MemStore
from torpor.kernel.pagemap import PagemapScanner
from torpor.kernel.procfs.maps import Vma, read_maps
from torpor.kernel.uapi.mman import MAP_NORESERVE
from torpor.objects.memory import contents
from torpor.objects.memory.contents import CHUNK_BYTES, Memory, Read, copy, scan

PID = 7
A = 0x10000


class _Appending(MemPagesWriter):
    """Of a store that is written in order."""

    supports_write_at = False

    def reserve(self, n_bytes: int) -> int:
        raise AssertionError("a stream has no room")

    def append(self, buffers: Sequence[memoryview]) -> None:
        for view in buffers:
            self._data += view.cast("B")


class _OrderedStore(MemStore):
    def pages_writer(self, name: str, n_bytes: int | None = None) -> MemPagesWriter:
        data = self.images[name] = bytearray()
        return _Appending(data)


def memory(n_pages: int) -> bytes:
    """Pages of which each is full of another byte."""
    return b"".join(bytes([1 + at % 255]) * PAGE_BYTES for at in range(n_pages))


def read_of(content: bytes) -> Read:
    """What reads the memory *content*, which lies at A."""

    def read(pieces: Sequence[Piece], into: memoryview) -> None:
        into[:] = b"".join(content[start - A : start - A + length] for start, length in pieces)

    return read


def ranges(*pages: tuple[int, int]) -> list[tuple[int, int]]:
    return [(A + first * PAGE_BYTES, A + end * PAGE_BYTES) for first, end in pages]


@pytest.mark.parametrize("store", [MemStore(), _OrderedStore()], ids=["any order", "in order"])
@pytest.mark.parametrize("n_pages", [1, 700])
def test_what_is_copied_is_read_again(store: MemStore, n_pages: int) -> None:
    content = memory(1000)
    wanted = ranges((0, n_pages), (800, 900))
    with StoreSink(store).open(kinds.PAGEMAP, PID) as stream:
        copy(wanted, read_of(content), stream)
    assert [(run.vaddr, run.n_pages) for run in load_pagemap(store, PID).runs] == [
        (start, (end - start) // PAGE_BYTES) for start, end in wanted
    ]
    with open_contents(store, PID) as found:
        for start, end in wanted:
            assert found.between(start, end) == content[start - A : end - A]


def test_what_only_the_tracing_thread_may_read_is_read_by_it() -> None:
    """As behind PROT_NONE where the kernel has CONFIG_PROC_MEM_FORCE_PTRACE: an error, or less than was asked for."""
    content, tracer = memory(3000), threading.get_ident()
    met = threading.Event()

    def read(pieces: Sequence[Piece], into: memoryview) -> None:
        if threading.get_ident() != tracer:
            met.set()
            raise OSError(5, "Input/output error") if pieces[0][0] % 2**21 else TorporError("cannot be read")
        # The tracer leaves the others something to do.
        met.wait(10)
        read_of(content)(pieces, into)

    store = MemStore()
    with StoreSink(store).open(kinds.PAGEMAP, PID) as stream:
        copy(ranges((0, 3000)), read, stream)
    assert met.is_set()
    with open_contents(store, PID) as found:
        assert found.between(A, A + 3000 * PAGE_BYTES) == content


@pytest.mark.parametrize("store", [MemStore(), _OrderedStore()], ids=["any order", "in order"])
def test_runs_of_other_sources_lie_among_those_that_are_copied(store: MemStore) -> None:
    others = [PageRun(A + at * PAGE_BYTES, 1, flags) for at, flags in ((0, PE_PARENT), (2, 0), (4, PE_LAZY), (9, 0))]
    with StoreSink(store).open(kinds.PAGEMAP, PID) as stream:
        copy(ranges((1, 2), (3, 4), (5, 7)), read_of(memory(10)), stream, others)
    found = [((run.vaddr - A) // PAGE_BYTES, run.n_pages, run.flags) for run in load_pagemap(store, PID).runs]
    assert found == [
        (0, 1, PE_PARENT), (1, 1, PE_PRESENT), (2, 1, 0), (3, 1, PE_PRESENT), (4, 1, PE_LAZY), (5, 2, PE_PRESENT),
        (9, 1, 0),
    ]  # fmt: skip


@pytest.mark.parametrize("gentle", [True, False])
def test_memory_of_a_process_that_nobody_has_stopped(gentle: bool) -> None:
    """A child by fork, which keeps what we had: no dump, no mapping's image, no ptrace."""
    content = memory(300)
    with mmap.mmap(-1, 300 * PAGE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as ours:
        ours[:] = content
        start = ctypes.addressof(ctypes.c_char.from_buffer(ours))
        gate, stop = os.pipe()
        child = os.fork()
        if not child:
            os.close(stop)
            os.read(gate, 1)
            os._exit(0)
        try:
            ours[:PAGE_BYTES] = bytes(PAGE_BYTES)
            vmas = [Vma(start, start + 300 * PAGE_BYTES, 3, False, 0, 0, 0, "")]
            store = MemStore()
            with (
                StoreSink(store).open(kinds.PAGEMAP, PID) as stream,
                Memory(Pid(child), gentle=gentle, unreadable=False) as memory_of_child,
            ):
                copy(scan(Pid(child), vmas).ranges, memory_of_child.read, stream)
        finally:
            os.close(gate)
            os.close(stop)
            os.waitpid(child, 0)
    with open_contents(store, PID) as found:
        assert found.between(start, start + 300 * PAGE_BYTES) == content


def test_streams_of_one_sink_have_numbers_of_their_own() -> None:
    store = MemStore()
    sink = StoreSink(store)
    with sink.open(kinds.PAGEMAP, PID) as one, sink.open(kinds.SHMEM_PAGEMAP, PID) as other:
        copy(ranges((0, 1)), read_of(b"1" * PAGE_BYTES), one)
        copy(ranges((0, 1)), read_of(b"2" * PAGE_BYTES), other)
    assert load_pagemap(store, PID).pages_id != load_pagemap(store, PID, kinds.SHMEM_PAGEMAP).pages_id


def test_what_was_not_copied_to_the_end_has_no_page_map() -> None:
    store = MemStore()

    def read(pieces: Sequence[Piece], into: memoryview) -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"), StoreSink(store).open(kinds.PAGEMAP, PID) as stream:
        copy(ranges((0, 600)), read, stream)
    assert not store.exists(kinds.PAGEMAP.file_name(PID))


def test_a_run_with_bytes_is_not_told_without_them() -> None:
    with pytest.raises(ValueError, match="without its bytes"), StoreSink(MemStore()).open(kinds.PAGEMAP, PID) as stream:
        stream.run(PageRun(A, 1, PE_PRESENT))


# -- sinks that are to come, in short: each has what it needs --------------------------------------------------


class _SocketStream(BasePageStream):
    """Runs and bytes as a page server takes them: (address, pages, flags), and what is present behind it."""

    in_any_order = False
    _HEAD = struct.Struct("QII")

    def __init__(self, peer: socket.socket) -> None:
        self._peer, self._runs, self._pieces = peer, list[PageRun](), list[Piece]()

    def run(self, run: PageRun) -> None:
        self._runs.append(run)

    def room(self, pieces: Sequence[Piece]) -> int:
        self._pieces = list(pieces)
        return 0

    def write_at(self, room: int, buffers: Sequence[memoryview]) -> None:
        content = b"".join(buffers)
        for start, length in self._pieces:
            self._tell_runs(start)
            self._peer.sendall(self._HEAD.pack(start, length // PAGE_BYTES, PE_PRESENT) + content[:length])
            content = content[length:]
        assert not content

    def _tell_runs(self, end: int) -> None:
        while self._runs and self._runs[0].vaddr < end:
            run = self._runs.pop(0)
            self._peer.sendall(self._HEAD.pack(run.vaddr, run.n_pages, run.flags))

    def close(self) -> None:
        self._tell_runs(1 << 64)
        self._peer.close()

    def abandon(self) -> None:
        self._peer.close()


def _serve(peer: socket.socket, stream: PageStream) -> None:
    """A page server: what comes by the socket goes into *stream*."""
    with peer.makefile("rb") as source, stream:
        while head := source.read(_SocketStream._HEAD.size):
            vaddr, n_pages, flags = _SocketStream._HEAD.unpack(head)
            if flags & PE_PRESENT:
                content = source.read(n_pages * PAGE_BYTES)
                stream.write_at(stream.room([(vaddr, len(content))]), [memoryview(content)])
            else:
                stream.run(PageRun(vaddr, n_pages, flags))


def test_a_page_server_gets_all_in_order() -> None:
    there, here = MemStore(), MemStore()
    ours, theirs = socket.socketpair()
    others = [PageRun(A + at * PAGE_BYTES, 1, PE_PARENT) for at in (1, 3, 5, 1001)]
    wanted = ranges((0, 1), (2, 3), (4, 5), (6, 1000))
    server = threading.Thread(target=_serve, args=(theirs, StoreSink(there).open(kinds.PAGEMAP, PID)))
    server.start()
    with _SocketStream(ours) as stream:
        copy(wanted, read_of(memory(1000)), stream, others)
    server.join()
    theirs.close()
    with StoreSink(here).open(kinds.PAGEMAP, PID) as direct:
        copy(wanted, read_of(memory(1000)), direct, others)
    assert load_pagemap(there, PID).runs == load_pagemap(here, PID).runs
    assert there.images["pages-1.img"] == here.images["pages-1.img"]


class _SparingSink:
    """Takes only what the images before have not: their pages are looked up as the bytes come."""

    def __init__(self, sink: PageSink, before: Contents) -> None:
        self._sink, self._before = sink, before

    def open(self, kind: ImageKind[m.pagemap_head], ident: int, n_bytes: int | None = None) -> PageStream:
        return _SparingStream(self._sink.open(kind, ident), self._before)


class _SparingStream(BasePageStream):
    in_any_order = False

    def __init__(self, stream: PageStream, before: Contents) -> None:
        self._stream, self._before, self._pieces = stream, before, list[Piece]()
        self.run, self.close, self.abandon = stream.run, stream.close, stream.abandon

    def room(self, pieces: Sequence[Piece]) -> int:
        self._pieces = list(pieces)
        return 0

    def write_at(self, room: int, buffers: Sequence[memoryview]) -> None:
        content = memoryview(b"".join(buffers))
        at = 0
        for start, length in self._pieces:
            for page in range(start, start + length, PAGE_BYTES):
                piece = content[at : at + PAGE_BYTES]
                at += PAGE_BYTES
                if self._before.between(page, page + PAGE_BYTES) == bytes(piece):
                    self._stream.run(PageRun(page, 1, PE_PARENT))
                else:
                    self._stream.write_at(self._stream.room([(page, PAGE_BYTES)]), [piece])


class _Pages:
    """A pages image of which each page is full of another byte."""

    size = 4 * CHUNK_BYTES

    def read_at(self, offset: int, into: memoryview) -> None:
        into[:] = memory(self.size // PAGE_BYTES)[offset : offset + len(into)]

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("n_pages", "n_threads"), [(24, 0), (4 * CHUNK_BYTES // PAGE_BYTES, 1)])
def test_little_memory_is_written_without_threads(
    n_pages: int, n_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def start(work: Callable[..., object], words: tuple[object, ...]) -> int:
        started.append(_thread.start_new_thread(work, words))
        return started[-1]

    monkeypatch.setattr("torpor.objects.memory.contents.start_new_thread", start)
    area = mmap.mmap(-1, n_pages * PAGE_BYTES, mmap.MAP_PRIVATE)
    at = ctypes.addressof(ctypes.c_char.from_buffer(area))
    pieces = [(start, min(start + n_pages // 4, n_pages)) for start in range(0, n_pages, n_pages // 4)]
    # The image has them the other way round, so that none lies behind the one before.
    places = dict(zip(pieces, (first for first, _ in reversed(pieces)), strict=True))
    extents = [(at + a * PAGE_BYTES, at + b * PAGE_BYTES, places[a, b] * PAGE_BYTES) for a, b in pieces]
    assert contents.restore(Pid(os.getpid()), extents, _Pages()) == n_pages
    whole = memory(n_pages)
    wanted = (whole[place * PAGE_BYTES : (place + b - a) * PAGE_BYTES] for (a, b), place in places.items())
    assert area[:] == b"".join(wanted)
    assert bool(started) is bool(n_threads)


def test_what_the_parent_has_is_not_stored_again() -> None:
    parent = MemStore()
    before, after = memory(600), bytearray(memory(600))
    after[5 * PAGE_BYTES] ^= 1
    with StoreSink(parent).open(kinds.PAGEMAP, PID) as stream:
        copy(ranges((0, 500)), read_of(before), stream)
    store = MemStore(parent)
    with (
        open_contents(parent, PID) as known,
        _SparingSink(StoreSink(store), known).open(kinds.PAGEMAP, PID) as stream,
    ):
        copy(ranges((0, 600)), read_of(bytes(after)), stream)
    assert load_pagemap(store, PID).n_present == 101
    with open_contents(store, PID) as found:
        assert found.between(*ranges((0, 600))[0]) == bytes(after)


def test_what_is_vast_and_empty_is_not_looked_at_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terabyte that was reserved, on a kernel without PAGEMAP_SCAN: its words alone take seconds to read."""
    seen: list[tuple[int, int]] = []

    def words(self: PagemapScanner, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        seen.append((start, end))
        return iter(())

    monkeypatch.setattr(PagemapScanner, "_iter_scan", lambda *_: fcntl.ioctl(0, 0))
    monkeypatch.setattr(PagemapScanner, "_iter_words", words)
    with mmap.mmap(-1, 1 << 40, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE) as vast:
        vast.madvise(mmap.MADV_DONTDUMP)  # so that it is a mapping by itself
        start = ctypes.addressof(ctypes.c_char.from_buffer(vast))
        vma = next(vma for vma in read_maps(Pid(os.getpid())) if vma.start <= start < vma.end)
        scan(Pid(os.getpid()), [vma])
        assert [end - first for first, end in seen] == [PAGE_BYTES]
        vast[1 << 39] = 1
        scan(Pid(os.getpid()), [vma])
        assert seen[-1] == (vma.start, vma.end)
