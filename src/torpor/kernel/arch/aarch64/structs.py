"""Structures of system calls that are laid out otherwise than on other machines."""

from __future__ import annotations

import struct

#: ``struct epoll_event``, which on x86-64 alone is packed.
EPOLL_EVENT = struct.Struct("<I4xQ")
