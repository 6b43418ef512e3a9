"""A TCP port that is free on loopback, and asking what listens there."""

import http.client
import socket

from harness.events import time_limit_s


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


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
