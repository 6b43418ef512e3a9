"""Sockets of others, asked for their options."""

import os
import socket

import pytest

from torpor.kernel import sockets


def test_one_number_stands_for_one_socket_after_the_other() -> None:
    found = []
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        fd = socket.socket(socket.AF_UNIX, kind).detach()
        found.append((fd, sockets.asked(fd).getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)))
        os.close(fd)
    (one, first), (other, second) = found
    assert one == other
    assert (first, second) == (socket.SOCK_STREAM, socket.SOCK_DGRAM)
    with pytest.raises(OSError, match="Bad file descriptor"):
        sockets.asked(one).getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)


def test_whose_it_is_keeps_it_when_nobody_asks_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_lent", {})
    with socket.socket(socket.AF_UNIX) as own:
        assert sockets.asked(own.fileno()).getsockopt(socket.SOL_SOCKET, sockets.SO_DOMAIN) == socket.AF_UNIX
        sockets._lent.clear()
        assert os.fstat(own.fileno())


def test_what_is_no_socket_is_told() -> None:
    reader, writer = os.pipe()
    try:
        with pytest.raises(OSError, match="non-socket"):
            sockets.asked(reader).getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    finally:
        os.close(reader)
        os.close(writer)
