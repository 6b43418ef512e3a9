"""Who gives pages and who asks for them: what either may say to the other, and nothing else."""

import random
import socket
import threading
from collections.abc import Callable

import pytest

from torpor.base.errors import TorporError
from torpor.images.pagemap import PE_LAZY, PE_PRESENT
from torpor.kernel.vm import PAGE_SIZE
from torpor.migrate import wire
from torpor.migrate.connection import Connection
from torpor.migrate.giving import give
from torpor.migrate.sources import RemoteSource
from torpor.migrate.wire import Message, WireError, pack

PID = 7
A = 0x10000
CONTENT = random.Random(1).randbytes(64 * PAGE_SIZE)


def read(ident: int, start: int, n_bytes: int) -> memoryview:
    """Of process PID, whose memory lies at A; at most 5 pages at once."""
    if ident != PID or not A <= start < A + len(CONTENT):
        raise TorporError(f"of pid {ident} no page is left at {start:#x}")
    return memoryview(bytearray(CONTENT[start - A : start - A + min(n_bytes, 5 * PAGE_SIZE)]))


def with_giver(talk: Callable[[socket.socket], None]) -> list[object]:
    """Have `talk` talk to one who gives: what that came to, an error or whether all was asked for."""
    near, far = socket.socketpair()
    ends: list[object] = []

    def run() -> None:
        try:
            with Connection(far, "who asks") as connection:
                ends.append(give(connection, read))
        except TorporError as error:
            ends.append(error)

    giver = threading.Thread(target=run)
    giver.start()
    with near:
        talk(near)
    giver.join()
    return ends


def test_pages_are_those_that_were_asked_for() -> None:
    def talk(near: socket.socket) -> None:
        with RemoteSource(Connection(near.dup(), "who gives")) as source:
            for first, n_pages in ((0, 1), (3, 2), (60, 4), (10, 40)):
                source.ask(PID, A + first * PAGE_SIZE, n_pages * PAGE_SIZE)
            for first, n_pages in ((0, 1), (3, 2), (60, 4), (10, 5)):
                found = None
                while found is None:
                    found = source.answer()
                assert found == CONTENT[first * PAGE_SIZE : (first + n_pages) * PAGE_SIZE]
            source.finish()

    assert with_giver(talk) == [True]


def test_who_goes_without_a_word_has_not_got_all() -> None:
    assert with_giver(lambda near: None) == [False]


@pytest.mark.parametrize(
    "word",
    [
        Message(wire.GET, 1, A, PID + 1),
        Message(wire.GET, 1, A - PAGE_SIZE, PID),
        Message(wire.GET, 0, A, PID),
        Message(wire.GET, (1 << 64) - 1, A, PID),
        Message(wire.OPEN2, whose=PID << 8 | 1),
        Message(wire.ADD_F, 1, A, PID << 8 | 1, PE_PRESENT),
        Message(77),
    ],
    ids=str,
)
def test_what_nobody_may_ask_for_ends_it(word: Message) -> None:
    (end,) = with_giver(lambda near: near.sendall(pack(word)))
    assert isinstance(end, TorporError)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        pack(Message(wire.ADD_F, 0, 0, 0, PE_PRESENT)),
        pack(Message(wire.ADD_F, 1, A, PID, PE_LAZY)),
        pack(Message(wire.ADD_F, 1, A + PAGE_SIZE, PID, PE_PRESENT)) + bytes(PAGE_SIZE),
        pack(Message(wire.ADD_F, 1, A, PID + 1, PE_PRESENT)) + bytes(PAGE_SIZE),
        pack(Message(wire.ADD_F, 3, A, PID, PE_PRESENT)) + bytes(3 * PAGE_SIZE),
        pack(Message(wire.ADD_F, 2, A, PID, PE_PRESENT)) + bytes(PAGE_SIZE),
        pack(Message(wire.CLOSE)),
        bytes(wire.HEADER_BYTES),
    ],
)
def test_answers_to_other_questions_are_refused(answer: bytes) -> None:
    near, far = socket.socketpair()
    with RemoteSource(Connection(near, "who gives")) as source, far:
        source.ask(PID, A, 2 * PAGE_SIZE)
        far.sendall(answer)
        far.shutdown(socket.SHUT_WR)
        with pytest.raises(WireError):
            source.answer()


def test_garbled_questions_harm_nobody() -> None:
    """1,000 messages of random bits: answered with pages, or refused."""
    rng = random.Random(2)
    for _ in range(1000):
        word = bytearray(pack(Message(wire.GET, rng.randrange(1, 9), A + PAGE_SIZE * rng.randrange(64), PID)))
        for _ in range(rng.randrange(3)):
            word[rng.randrange(len(word))] ^= 1 << rng.randrange(8)

        def talk(near: socket.socket, word: bytes = bytes(word)) -> None:
            near.sendall(word)
            near.shutdown(socket.SHUT_WR)
            while near.recv(1 << 16):
                pass

        (end,) = with_giver(talk)
        assert isinstance(end, TorporError) or end in (True, False)
