"""UDP sockets that the kernel reads itself; no kernel of ours has one, so what it tells is made up."""

import socket

import pytest

from torpor.base.errors import RefusedError
from torpor.objects.files.model import OpenFile
from torpor.objects.files.socket import udp


class _File:
    fd = 0

    def refuse(self, text: str, *, hint: str | None = None) -> RefusedError:
        return RefusedError(text, hint=hint)


@pytest.mark.parametrize("kind", range(9))
def test_tunnels_of_the_kernels_are_refused_by_name(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "get_int", lambda *_: kind)
    file: OpenFile = _File()  # type: ignore[assignment]
    if kind <= 3:  # what a program may ask for by itself
        udp.check(file, socket.IPPROTO_UDP)
        return
    with pytest.raises(RefusedError, match=rf"takes for a tunnel \(UDP_ENCAP {kind}\)"):
        udp.check(file, socket.IPPROTO_UDP)
    udp.check(file, socket.IPPROTO_RAW)


def test_what_a_program_asks_for_itself_is_not() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.setsockopt(socket.IPPROTO_UDP, 100, 2)
        file = _File()
        file.fd = made.fileno()
        udp.check(file, socket.IPPROTO_UDP)  # type: ignore[arg-type]
