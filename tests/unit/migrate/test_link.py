"""Frames between the two sides of a migration: what a stranger may say, and how far it is believed."""

import os
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from torpor.base.errors import MigrationError
from torpor.migrate import link as link_module
from torpor.migrate.link import DataWay, FailedThereError, Link, LinkLostError, Message, own_socket


@pytest.fixture
def ends() -> Iterator[tuple[Link, Link]]:
    near, far = socket.socketpair()
    links = own_socket(near, "far"), own_socket(far, "near")
    yield links
    for link in links:
        if link.fileno() >= 0:
            link.close()


def test_messages_come_as_they_were_said(ends: tuple[Link, Link]) -> None:
    near, far = ends
    near.send("offer", name="x", pids=[1, 2])
    message = far.expect("offer")
    assert message.text("name") == "x" and message.entries("pids", 2) == [1, 2]


def test_data_come_in_order_and_end(ends: tuple[Link, Link]) -> None:
    near, far = ends
    way = DataWay(near)
    way.write(b"abc")
    way.write(memoryview(b"defg"))
    way.finish()
    near.send("go")
    got = b""
    while data := far.read(2):
        got += data
    assert got == b"abcdefg" and far.receive().name == "go"


def test_what_is_seen_is_good_until_more_is_read(ends: tuple[Link, Link]) -> None:
    near, far = ends
    near.send_data(b"abc")
    near.send_data(b"d")
    near.end_data()
    assert [bytes(far.view(2)) for _ in range(4)] == [b"ab", b"c", b"d", b""]


def test_who_has_failed_says_why_before_the_link_ends(ends: tuple[Link, Link]) -> None:
    near, far = ends
    far.send("failed", text="the disk is full", hint="make room")
    far.close()
    with pytest.raises(FailedThereError, match="the disk is full") as caught:
        for _ in range(100):
            near.send_data(bytes(1 << 20))
    assert caught.value.hint == "make room"


def test_a_link_that_ends_is_lost_whatever_was_due(ends: tuple[Link, Link]) -> None:
    near, far = ends
    near.close()
    for wait in (lambda: far.read(1), far.receive, lambda: far.expect("go", timeout_s=1)):
        with pytest.raises(LinkLostError):
            wait()


def test_silence_is_not_waited_for_for_ever(ends: tuple[Link, Link]) -> None:
    with pytest.raises(LinkLostError, match="said nothing"):
        ends[1].receive(timeout_s=0.01)


def test_a_message_by_single_bytes_is_not_waited_for_for_ever(ends: tuple[Link, Link]) -> None:
    is_over = threading.Event()

    def drip() -> None:
        os.write(ends[0].writer, struct.pack(">cI", b"M", 1000))
        while not is_over.wait(0.02):
            os.write(ends[0].writer, b" ")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        with pytest.raises(LinkLostError, match="said nothing"):
            ends[1].receive(timeout_s=0.2)
    finally:
        is_over.set()
        thread.join()


def test_a_reason_is_not_looked_for_for_ever(ends: tuple[Link, Link], monkeypatch: pytest.MonkeyPatch) -> None:
    """In what never ends."""
    monkeypatch.setattr(link_module, "_SAYS_WHY_WITHIN_S", 0.1)
    is_over = threading.Event()

    def chatter() -> None:
        while not is_over.is_set():
            ends[0].send("hello")

    thread = threading.Thread(target=chatter)
    thread.start()
    try:
        assert "lost" in str(ends[1].why(LinkLostError("it is lost")))
    finally:
        is_over.set()
        while ends[1].has_message():
            os.read(ends[1].fileno(), 1 << 16)
        thread.join()


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack(">cI", b"M", (4 << 20) + 1),
        struct.pack(">cI", b"X", 1) + b"x",
        struct.pack(">cI", b"M", 2) + b"[]",
        struct.pack(">cI", b"M", 2) + b"{}",
        struct.pack(">cI", b"M", 8) + b'{"is":1}',
        struct.pack(">cI", b"M", 3) + b"\xff\xfe{",
        struct.pack(">cI", b"M", 26) + b'{"is":"x","y":["z\\ud800"]}',
        struct.pack(">cI", b"M", 26) + b'{"is":"x","z\\ud800":[1,2]}',
        struct.pack(">cI", b"D", 1) + b"x",
    ],
)
def test_what_makes_no_sense_is_no_message(ends: tuple[Link, Link], sent: bytes) -> None:
    os.write(ends[0].writer, sent)
    with pytest.raises(MigrationError):
        ends[1].receive(timeout_s=1)


@pytest.mark.parametrize("length", [0, (1 << 20) + 1])
def test_data_of_no_believable_length_are_not_read(ends: tuple[Link, Link], length: int) -> None:
    os.write(ends[0].writer, struct.pack(">cI", b"D", length))
    with pytest.raises(LinkLostError):
        ends[1].read(10)


def test_what_a_message_lacks_or_has_of_another_kind_is_refused() -> None:
    message = Message("offer", {"n": True, "text": "a\0b", "list": [1, 2], "flag": 1, "big": 1 << 70})
    for ask in (
        lambda: message.number("n"), lambda: message.number("big"), lambda: message.number("none"),
        lambda: message.text("text"), lambda: message.text("n"), lambda: message.entries("list", 1),
        lambda: message.flag("flag"),
    ):  # fmt: skip
        with pytest.raises(MigrationError, match="makes no sense"):
            ask()


def test_who_takes_nothing_any_more_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_TAKES_WITHIN_S", 0.2)
    near, far = socket.socketpair()
    with far:
        link = own_socket(near, "there")
        with pytest.raises(LinkLostError, match="has taken nothing"):
            link.send_data(bytes(8 << 20))
        link.close()
