"""What travels between a dump and a page server: pages as they were, and nothing kept of what nobody may say."""

import os
import random
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from torpor.base.errors import TorporError
from torpor.images import kinds
from torpor.images.errors import ImageError
from torpor.images.pagemap import PE_LAZY, PE_PARENT, PE_PRESENT, PageRun, load_pagemap
from torpor.images.pages import StoreSink, open_contents
from torpor.images.stores.directory import DirStore
from torpor.kernel.vm import PAGE_SIZE
from torpor.migrate import wire
from torpor.migrate.connection import BUFFER_BYTES, Connection
from torpor.migrate.receiving import take
from torpor.migrate.sending import RemoteSink
from torpor.migrate.wire import Message, WireError, map_of, pack, unpack, whose_is
from torpor.objects.memory.contents import copy

PID = 7
A = 0x10000
CONTENT = b"".join(bytes([1 + at % 255]) * PAGE_SIZE for at in range(1000))


class Server(threading.Thread):
    """A page server that takes what comes through `far`; `error` is how it ended."""

    def __init__(self, far: socket.socket, directory: Path) -> None:
        super().__init__()
        self._connection, self._directory = Connection(far, "the dump"), directory
        self.error: TorporError | None = None
        self.start()

    def run(self) -> None:
        try:
            with self._connection:
                take(self._connection, str(self._directory))
        except TorporError as error:
            self.error = error


def exchange(directory: Path, talk: Callable[[socket.socket], None]) -> Server:
    """Have `talk` talk to a server; the server, which has ended."""
    near, far = socket.socketpair()
    server = Server(far, directory)
    with near:
        talk(near)
    server.join()
    return server


def pages(*places: tuple[int, int]) -> list[tuple[int, int]]:
    return [(A + first * PAGE_SIZE, A + end * PAGE_SIZE) for first, end in places]


def read(pieces: Sequence[tuple[int, int]], into: memoryview) -> None:
    into[:] = b"".join(CONTENT[start - A : start - A + length] for start, length in pieces)


def sent(near: socket.socket) -> None:
    """One address space and one segment, by the sink that a dump has."""
    with RemoteSink(Connection(near.dup(), "the server")) as sink:
        with sink.open(kinds.PAGEMAP, PID, lazy=pages((2, 4), (700, 900))) as stream:
            copy(pages((1, 3), (5, 600), (800, 1000)), read, stream, [PageRun(A, 1, 0, PAGE_SIZE)])
        with sink.open(kinds.SHMEM_PAGEMAP, 9) as stream:
            copy(pages((0, 1)), read, stream)
        sink.settle()


def test_pages_arrive_as_they_were(tmp_path: Path) -> None:
    server = exchange(tmp_path, sent)
    assert server.error is None
    with DirStore(tmp_path) as store:
        assert store.names() == ["pagemap-7.img", "pagemap-shmem-9.img", "pages-65537.img", "pages-65538.img"]
        with open_contents(store, PID, page_bytes=PAGE_SIZE) as found:
            for start, end in pages((1, 3), (5, 600), (800, 1000)):
                assert found.between(start, end) == CONTENT[start - A : end - A]
        runs = load_pagemap(store, PID, page_bytes=PAGE_SIZE).runs
    now, late = PE_PRESENT, PE_PRESENT | PE_LAZY
    assert [((run.vaddr - A) // PAGE_SIZE, run.n_pages, run.flags) for run in runs] == [
        (0, 1, 0), (1, 1, now), (2, 1, late), (5, 595, now), (800, 100, late), (900, 100, now),
    ]  # fmt: skip


def test_what_is_late_is_told_to_a_store_as_to_a_server(tmp_path: Path) -> None:
    with DirStore(tmp_path, "w") as store:
        with StoreSink(store, PAGE_SIZE).open(kinds.PAGEMAP, PID, lazy=pages((2, 4), (700, 900))) as stream:
            copy(pages((1, 3), (5, 600), (800, 1000)), read, stream)
        runs = load_pagemap(store, PID, page_bytes=PAGE_SIZE).runs
    assert [((run.vaddr - A) // PAGE_SIZE, run.n_pages, run.lazy) for run in runs] == [
        (1, 1, False), (2, 1, True), (5, 595, False), (800, 100, True), (900, 100, False),
    ]  # fmt: skip


def test_who_hangs_up_leaves_nothing(tmp_path: Path) -> None:
    def broken(near: socket.socket) -> None:
        near.sendall(pack(Message(wire.OPEN2, whose=whose_is(kinds.PAGEMAP, PID))))
        near.recv(1)
        near.sendall(pack(Message(wire.ADD_F, 2, A, whose_is(kinds.PAGEMAP, PID), PE_PRESENT)) + bytes(PAGE_SIZE))

    server = exchange(tmp_path, broken)
    assert isinstance(server.error, WireError) and "hung up" in str(server.error)
    assert os.listdir(tmp_path) == []


def test_pages_that_the_parent_should_have_are_looked_for(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    with DirStore(tmp_path / "before", "w") as store:
        with StoreSink(store, PAGE_SIZE).open(kinds.PAGEMAP, PID) as stream:
            copy(pages((0, 4)), read, stream)

    def leaning(near: socket.socket, n_pages: int = 4) -> None:
        with RemoteSink(Connection(near.dup(), "the server")) as sink:
            assert sink.has_parent(kinds.PAGEMAP, PID) and not sink.has_parent(kinds.PAGEMAP, 8)
            with sink.open(kinds.PAGEMAP, PID) as stream:
                assert stream.has_parent
                stream.run(PageRun(A, n_pages, PE_PARENT, PAGE_SIZE))
            sink.settle()

    (tmp_path / "now").mkdir()
    (tmp_path / "now" / "parent").symlink_to("../before")
    assert exchange(tmp_path / "now", leaning).error is None
    with DirStore(tmp_path / "now") as store, open_contents(store, PID, page_bytes=PAGE_SIZE) as found:
        assert found.between(A, A + 4 * PAGE_SIZE) == CONTENT[: 4 * PAGE_SIZE]

    def too_much(near: socket.socket) -> None:
        with pytest.raises(WireError):
            leaning(near, 5)

    assert isinstance(exchange(tmp_path / "now", too_much).error, ImageError)


WHOSE = whose_is(kinds.PAGEMAP, PID)


@pytest.mark.parametrize(
    "word",
    [
        Message(99),
        Message(wire.OPEN2, whose=PID << 8 | 99),
        Message(wire.OPEN2, whose=1),
        Message(wire.OPEN2, whose=1 << 60 | 1),
        Message(wire.GET, 1, A, PID),
        Message(wire.ADD_F, 0, A, WHOSE, PE_PRESENT),
        Message(wire.ADD_F, 1, A + 1, WHOSE, PE_PRESENT),
        Message(wire.ADD_F, 1 << 52, A, WHOSE, PE_PRESENT),
        Message(wire.ADD_F, (1 << 64) - 1, A, WHOSE, PE_PRESENT),
        Message(wire.ADD_F, 1, A, WHOSE, PE_PRESENT | PE_PARENT),
        Message(wire.ADD_F, 1, A, WHOSE, 64),
        Message(wire.CLOSE, flags=3),
    ],
    ids=str,
)
def test_what_nobody_may_say_ends_it(word: Message, tmp_path: Path) -> None:
    server = exchange(tmp_path, lambda near: near.sendall(pack(word)))
    assert isinstance(server.error, WireError)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("second", [A - PAGE_SIZE, A, A + PAGE_SIZE])
def test_pages_come_in_order_and_once(second: int, tmp_path: Path) -> None:
    def talk(near: socket.socket) -> None:
        near.sendall(pack(Message(wire.ADD_F, 2, A, WHOSE, PE_PRESENT)) + bytes(2 * PAGE_SIZE))
        near.sendall(pack(Message(wire.ADD_F, 1, second, WHOSE, PE_PRESENT)) + bytes(PAGE_SIZE))

    assert isinstance(exchange(tmp_path, talk).error, WireError)
    assert os.listdir(tmp_path) == []


def test_an_earlier_set_is_no_set_any_more_when_its_page_maps_are_replaced(tmp_path: Path) -> None:
    from torpor.images import manifest
    from torpor.images.manifest import Content, Manifest

    files = {"inventory.img": Content(0), "pagemap-7.img": Content(0), "core-7.img": Content(0)}
    for name in files:
        (tmp_path / name).touch()
    (tmp_path / manifest.NAME).write_bytes(manifest.encode(Manifest("x", files=files)))
    (tmp_path / "mine").touch()
    assert exchange(tmp_path, sent).error is None
    assert {"core-7.img", "inventory.img", manifest.NAME} & set(os.listdir(tmp_path)) == set()
    assert "mine" in os.listdir(tmp_path)


def test_messages_survive_the_way() -> None:
    for command in (wire.ADD_F, wire.OPEN2, wire.GET):
        message = Message(command, 3, A, WHOSE, PE_PRESENT if command == wire.ADD_F else 0)
        assert len(pack(message)) == wire.HEADER_BYTES == 32
        assert unpack(pack(message)) == message
    assert map_of(WHOSE) == (kinds.PAGEMAP, PID)
    # The numbers of CRIU 2 and 3.
    assert map_of(PID << 8 | 11) == (kinds.PAGEMAP, PID)
    assert map_of(PID << 8 | 34) == (kinds.SHMEM_PAGEMAP, PID)


def test_a_reader_gets_what_was_sent_however_it_comes() -> None:
    near, far = socket.socketpair()
    content = random.Random(1).randbytes(3 * BUFFER_BYTES)

    def talk() -> None:
        rng = random.Random(2)
        at = 0
        while at < len(content):
            n_bytes = rng.choice((1, 31, 4096, 100_000))
            near.sendall(content[at : at + n_bytes])
            at += n_bytes
        near.close()

    writer = threading.Thread(target=talk)
    writer.start()
    with Connection(far, "writer") as connection:
        rng, found = random.Random(3), bytearray()
        while len(found) < len(content):
            n_bytes = min(rng.choice((1, 32, 4096, BUFFER_BYTES)), len(content) - len(found))
            found += connection.read(n_bytes)
        assert found == content
        with pytest.raises(WireError, match="hung up"):
            connection.read(1)
    writer.join()


def spoken() -> bytes:
    """All that a dump says to a server, which answers as servers do."""
    near, far = socket.socketpair()
    said = bytearray()

    def listen() -> None:
        with Connection(far, "dump") as connection:
            while (message := connection.next_message()) is not None:
                said.extend(pack(message))
                if message.command == wire.OPEN2:
                    connection.send([b"\0"])
                elif message.command == wire.CLOSE:
                    connection.send([struct.pack("=i", 0)])
                elif message.flags & PE_PRESENT:
                    left = message.n_bytes
                    while left:
                        said.extend(connection.read(min(left, BUFFER_BYTES)))
                        left -= min(left, BUFFER_BYTES)

    listener = threading.Thread(target=listen)
    listener.start()
    sent(near)
    near.close()
    listener.join()
    return bytes(said)


def test_what_is_garbled_harms_nobody(tmp_path: Path) -> None:
    """300 dumps of which some bytes are others, cut off or said twice: taken, or refused and nothing is left."""
    good, rng = spoken(), random.Random(4)
    n_refused = 0
    for number in range(300):
        bad = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            # Most of it are pages; messages are what is to be hit.
            at = rng.choice((0, 32, 64)) + rng.randrange(32) if rng.random() < 0.8 else rng.randrange(len(bad))
            bad[at] ^= 1 << rng.randrange(8)
        if rng.random() < 0.3:
            del bad[rng.randrange(len(bad)) :]
        if rng.random() < 0.1:
            bad += bad[: rng.randrange(200)]
        directory = tmp_path / str(number)
        directory.mkdir()

        def talk(near: socket.socket, bad: bytearray = bad) -> None:
            try:
                near.sendall(bad)
                near.shutdown(socket.SHUT_WR)
                while near.recv(4096):
                    pass
            except OSError:
                return  # it has had enough

        server = exchange(directory, talk)
        n_refused += server.error is not None
        if server.error is not None:
            assert os.listdir(directory) == [], server.error
    assert n_refused > 100
