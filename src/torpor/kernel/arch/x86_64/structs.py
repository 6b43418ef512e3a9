"""Structures of system calls that are laid out otherwise than on other machines."""

from __future__ import annotations

import struct

#: ``struct epoll_event``, which is packed here (EPOLL_PACKED of include/uapi/linux/eventpoll.h).
EPOLL_EVENT = struct.Struct("<IQ")
