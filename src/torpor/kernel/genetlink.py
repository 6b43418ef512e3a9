"""generic netlink: the parts of the kernel that speak it, each a family with a number of this boot.

Source
    ``include/uapi/linux/genetlink.h``.
"""

from __future__ import annotations

import struct

from torpor.kernel.netlink import Netlink, parse_attributes
from torpor.kernel.uapi.genetlink import (
    CTRL_ATTR_FAMILY_ID,
    CTRL_ATTR_FAMILY_NAME,
    CTRL_CMD_GETFAMILY,
    GENL_ID_CTRL,
)

genlmsghdr = struct.Struct("=BBH")
_VERSION = 1


def families(connection: Netlink) -> dict[str, int]:
    """The number of each family that there is, by name; to ask for a single one by name would load its module."""
    found = {}
    for payload in connection.dump(GENL_ID_CTRL, command(CTRL_CMD_GETFAMILY)):
        attributes = parse_attributes(payload[genlmsghdr.size :])
        name = attributes.get(CTRL_ATTR_FAMILY_NAME, b"").rstrip(b"\0").decode(errors="replace")
        found[name] = int.from_bytes(attributes.get(CTRL_ATTR_FAMILY_ID, b""), "little")
    return found


def command(number: int, attributes: bytes = b"") -> bytes:
    """The payload of a message to a family."""
    return genlmsghdr.pack(number, _VERSION, 0) + attributes
