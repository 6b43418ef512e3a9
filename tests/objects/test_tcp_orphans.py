"""A connection that is restored while the kernel still has the same one, which no process has any more."""

import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.network import silence
from harness.program import Program
from torpor.kernel.sock_diag import destroy_orphan

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]

#: Both ends of a connection, and the bytes that still lie in it.
_TALKS_TO_ITSELF = """
import signal, socket, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [10])
listener = socket.create_server((sys.argv[1], 0), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
near = socket.create_connection(listener.getsockname()[:2])
far, _ = listener.accept()
listener.close()
near.sendall(b"before")
print("ends", near.getsockname()[1], near.getpeername()[1], flush=True)
signal.sigwait([10])
near.sendall(b"after")
print("got", far.recv(6, socket.MSG_WAITALL), far.recv(5, socket.MSG_WAITALL), flush=True)
"""


class Talker(Program):
    """Talks to itself by TCP."""

    dump_options = restore_options = ("--tcp-established",)


@contextmanager
def _orphans(address: str, client: int, server: int, left: str) -> Iterator[None]:
    """Sockets that no process has, between the same two ends: each has said goodbye, and is not heard.

    Of an end that is not *left* there is nothing any more, and it was not heard either.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, server), family=family) as listener:
        near = socket.create_connection((address, server), source_address=(address, client))
        far, _ = listener.accept()
    with silence():
        for name, each in (("near", near), ("far", far)):
            if name not in left:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.close()
        yield


@pytest.mark.parametrize("left", ["near and far", "near", "far"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_what_is_left_of_it_is_ended(address: str, left: str) -> None:
    with Talker() as talker:
        talker.start([sys.executable, "-c", _TALKS_TO_ITSELF, address])
        talker.wait_log(r"ends \d+ \d+\n")
        _, client, server = talker.log().split()
        talker.checkpoint()
        with _orphans(address, int(client), int(server), left):
            talker.restore()
        assert talker.root is not None
        os.kill(talker.root.pid, signal.SIGUSR1)
        talker.wait_log(r"got .*\n")
        assert talker.log().splitlines()[-1] == "got b'before' b'after'"


def test_what_has_an_owner_is_left_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    here, there = [(socket.inet_aton(host), port) for host, port in (near.getsockname(), near.getpeername())]
    with far, near:
        assert not destroy_orphan(socket.AF_INET, here, there)
        near.sendall(b"on it goes")
        assert far.recv(99) == b"on it goes"
        near.sendall(b"and ends")
        near.close()
        # Somebody has still to read from it.
        assert not destroy_orphan(socket.AF_INET, here, there)
        assert far.recv(99) == b"and ends"
        assert far.recv(99) == b""
    # Who has hung up first is in TIME_WAIT, now.
    assert destroy_orphan(socket.AF_INET, here, there)
    assert not destroy_orphan(socket.AF_INET, here, there)
