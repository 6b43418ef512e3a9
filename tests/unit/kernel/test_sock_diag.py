"""What is said where the kernel has no table of a protocol's sockets; a request for what there is none of is real."""

import os
import socket

import pytest

from torpor.base.errors import KernelError
from torpor.kernel.sock_diag import read_inet

_NOBODYS_PROTOCOL = 253


def test_the_module_that_is_missing_is_named() -> None:
    with pytest.raises(KernelError, match="No such file") as told:
        read_inet(socket.AF_INET, _NOBODYS_PROTOCOL)
    assert told.value.hint is not None
    assert "modprobe raw_diag" in told.value.hint


def test_of_udp_there_is_a_table() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        rows = read_inet(socket.AF_INET, socket.IPPROTO_UDP)
        assert os.fstat(sock.fileno()).st_ino in rows
