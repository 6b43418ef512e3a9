"""Data beside the link: as sent, in order, over any number of connections, and from nobody but the source."""

import itertools
import os
import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import cast

import pytest

from harness.broken_off import break_off
from harness.events import time_limit_s
from harness.rounds import rounds
from torpor.base.errors import MigrationError
from torpor.migrate import data
from torpor.migrate.data import Identity, Listener, Receiver, Sender
from torpor.migrate.link import LinkLostError


@pytest.fixture(scope="module")
def identities() -> tuple[Identity, Identity]:
    made = data.make_identity(), data.make_identity()
    assert made[0] is not None and made[1] is not None
    return made[0], made[1]


@contextmanager
def _joined(identities: tuple[Identity, Identity], n_connections: int) -> Iterator[tuple[Sender, Receiver]]:
    ours, theirs = identities
    with ExitStack() as stack:
        listener = Listener("127.0.0.1", theirs)
        stack.callback(listener.close)
        senders: list[Sender] = []

        def come() -> None:
            plain = data.reach(listener.address, listener.port, n_connections)
            senders.append(Sender(data.secure(plain, ours, theirs.certificate)))

        thread = threading.Thread(target=come)
        thread.start()
        receiver = Receiver(listener.accept(n_connections, ours.certificate))
        stack.callback(receiver.close)
        thread.join()
        stack.callback(senders[0].close)
        yield senders[0], receiver


def _read_all(receiver: Receiver) -> bytes:
    return b"".join(iter(lambda: receiver.read(100_000), b""))


def test_whoever_is_broken_off_as_he_sends_can_end_it() -> None:
    """At any instant: in a lock of the queues between him and the connections, too."""
    chance = random.Random(11)
    for _ in range(rounds(200, 3000)):
        near, far = socket.socketpair()
        with far:
            reader = threading.Thread(target=_swallow, args=(far,))
            reader.start()
            sender = Sender(cast("list[ssl.SSLSocket]", [near]))
            break_off(partial(sender.write, bytes(300)), chance.uniform(0.001, 0.02))
            closing = threading.Thread(target=sender.close, daemon=True)
            closing.start()
            closing.join(time_limit_s(10))
            assert not closing.is_alive(), "it does not end"
            reader.join()


def _swallow(end: socket.socket) -> None:
    with suppress(OSError):
        while end.recv(1 << 16):
            pass


@pytest.mark.parametrize("n_connections", [1, 3])
def test_streams_come_as_they_were_sent(n_connections: int, identities: tuple[Identity, Identity]) -> None:
    first = random.Random(3).randbytes(3_000_001)
    with _joined(identities, n_connections) as (sender, receiver):
        buffer = bytearray(first)

        def send() -> None:
            sender.write(memoryview(buffer))
            buffer[:] = bytes(len(buffer))  # its owner goes on with it
            sender.finish()
            sender.write(b"second")
            sender.finish()

        thread = threading.Thread(target=send)
        thread.start()
        assert _read_all(receiver) == first and _read_all(receiver) == b"second"
        thread.join()


def test_what_is_seen_is_read_once_piece_after_piece(identities: tuple[Identity, Identity]) -> None:
    """More pieces than there is room for, of any length, in small parts: each room is used again and again."""
    sent = random.Random(4).randbytes(11 << 20)
    with _joined(identities, 2) as (sender, receiver):

        def send() -> None:
            for at, end in itertools.pairwise([0, 1, 5, 1 << 19, (1 << 19) + 1, 3 << 20, 11 << 20]):
                sender.write(memoryview(sent)[at:end])
            sender.finish()

        thread = threading.Thread(target=send)
        thread.start()
        got = bytearray()
        sizes = itertools.cycle([512, 1 << 20, 7, 1 << 17])
        while view := receiver.view(next(sizes)):
            got += view
        assert got == sent
        thread.join()


def test_who_waits_for_room_is_told_that_it_is_over(identities: tuple[Identity, Identity]) -> None:
    with _joined(identities, 1) as (sender, receiver):
        failed: list[LinkLostError] = []

        def send() -> None:
            try:
                for _ in range(1000):
                    sender.write(bytes(1 << 20))
            except LinkLostError as error:
                failed.append(error)

        thread = threading.Thread(target=send)
        thread.start()
        assert receiver.read(1) == b"\0"  # and no more: pieces wait everywhere
        sender.close()
        thread.join()
        assert failed


def test_a_room_is_the_same_memory_after_a_fork() -> None:
    """To write into it would copy each of its pages, while a tree is stopped."""
    room = data._Room()
    room.fill(memoryview(b"before"))
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.read(reader, 1)
        os._exit(int(bytes(room.content[:6]) != b"after."))
    room.fill(memoryview(b"after."))
    os.write(writer, b"x")
    assert os.waitpid(child, 0)[1] == 0
    os.close(reader)
    os.close(writer)


def test_a_length_that_nobody_sends_is_not_believed(identities: tuple[Identity, Identity]) -> None:
    ours, theirs = identities
    with ExitStack() as stack:
        listener = Listener("127.0.0.1", theirs)
        stack.callback(listener.close)
        come: list[ssl.SSLSocket] = []

        def send() -> None:
            come.extend(data.secure(data.reach(listener.address, listener.port, 1), ours, theirs.certificate))
            come[0].sendall(struct.pack(">I", (1 << 19) + 1))

        thread = threading.Thread(target=send)
        thread.start()
        receiver = Receiver(listener.accept(1, ours.certificate))
        stack.callback(receiver.close)
        thread.join()
        stack.callback(come[0].close)
        with pytest.raises(LinkLostError, match="makes no sense"):
            receiver.view(1)


def test_one_that_ends_in_between_is_an_error_on_both_sides(identities: tuple[Identity, Identity]) -> None:
    with _joined(identities, 2) as (sender, receiver):
        sender.write(b"x")
        assert receiver.read(1) == b"x"
        sender.close()
        with pytest.raises(LinkLostError):
            receiver.read(1)
        receiver.close()
    with _joined(identities, 2) as (sender, receiver):
        receiver.close()
        with pytest.raises(LinkLostError):
            for _ in range(1000):
                sender.write(bytes(1 << 20))


def test_a_stranger_is_let_go_of_and_the_source_still_comes(identities: tuple[Identity, Identity]) -> None:
    ours, theirs = identities
    stranger = data.make_identity()
    assert stranger is not None
    listener = Listener("127.0.0.1", theirs)
    met: list[bool] = []

    def come() -> None:
        with socket.create_connection((listener.address, listener.port)) as plain:
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with suppress(ConnectionError):
                plain.recv(1)
        with pytest.raises((LinkLostError, ssl.SSLError, OSError)):
            reached = data.reach(listener.address, listener.port, 1)
            with data.secure(reached, stranger, theirs.certificate)[0] as refused:
                if not refused.recv(1):  # in TLS 1.3 that is heard later
                    raise LinkLostError("let go of")
        met.append(True)
        found = data.secure(data.reach(listener.address, listener.port, 1), ours, theirs.certificate)
        found[0].close()

    thread = threading.Thread(target=come)
    thread.start()
    accepted = listener.accept(1, ours.certificate)
    thread.join()
    assert met == [True] and len(accepted) == 1
    accepted[0].close()
    listener.close()


def test_strangers_do_not_have_it_wait_for_ever(
    identities: tuple[Identity, Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is always another one in the queue."""
    welcome, n_welcomed = data._welcome, 0

    def slowly(plain: socket.socket, context: ssl.SSLContext) -> tuple[int, ssl.SSLSocket | None]:
        nonlocal n_welcomed
        n_welcomed += 1
        time.sleep(0.05)
        return welcome(plain, context)

    monkeypatch.setattr(data, "_ACCEPT_S", 0.1)
    monkeypatch.setattr(data, "_welcome", slowly)
    ours, theirs = identities
    listener = Listener("127.0.0.1", theirs)
    with ExitStack() as stack:
        stack.callback(listener.close)
        for _ in range(10):
            stack.enter_context(socket.create_connection(("127.0.0.1", listener.port), 5)).sendall(b"no TLS at all")
        with pytest.raises(LinkLostError, match="has not come"):
            listener.accept(1, ours.certificate)
    assert 0 < n_welcomed < 5


def test_what_is_no_certificate(identities: tuple[Identity, Identity]) -> None:
    with pytest.raises(MigrationError, match="certificate makes no sense"):
        identities[0].context("-----BEGIN NONSENSE-----", server=True)
