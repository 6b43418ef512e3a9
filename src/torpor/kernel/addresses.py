"""Internet addresses for people: ``127.0.0.1:80``, ``[::1]:80``."""

from __future__ import annotations

import _socket

_IPV4_BYTES = 4


def format_address(address: bytes, port: int) -> str:
    """*address* in network order, 4 or 16 bytes; anything else is shown as hexadecimal digits."""
    if len(address) == _IPV4_BYTES:
        return f"{_socket.inet_ntop(_socket.AF_INET, address)}:{port}"
    if len(address) == 4 * _IPV4_BYTES:
        return f"[{_socket.inet_ntop(_socket.AF_INET6, address)}]:{port}"
    return f"{address.hex()}:{port}"
