"""Asking what listens at a TCP port of the loopback."""

import http.client
import socket

from harness.events import time_limit_s


def get(port: int, path: str = "/") -> str:
    """What GET answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=time_limit_s(20))
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode().strip()
    finally:
        connection.close()


def is_refused(port: int) -> bool:
    """Whether nobody listens."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0
