"""What of the words of an interface's driver makes one like it: not all that it tells can be given back."""

import struct

from torpor.kernel import netlink
from torpor.objects.ns.net.link_kinds import settable_data

_VLAN_ID, _VLAN_FLAGS, _GENEVE_ID, _GENEVE_TTL, _GENEVE_TTL_INHERIT = 1, 2, 1, 3, 12


def test_a_vlan_is_given_those_flags_that_there_are() -> None:
    """As Linux 7.2 tells of ``ip link add type vlan id 7``: with a mask of all bits, which it refuses."""
    told = netlink.attribute(_VLAN_ID, b"\7\0") + netlink.attribute(_VLAN_FLAGS, struct.pack("=II", 1, 0xFFFFFFFF))
    found = netlink.parse_attributes(settable_data("vlan", told))
    assert found == {_VLAN_ID: b"\7\0", _VLAN_FLAGS: struct.pack("=II", 1, 0x1F)}


def test_a_geneve_keeps_its_time_to_live() -> None:
    rest = netlink.number(_GENEVE_ID, 5) + netlink.attribute(_GENEVE_TTL, b"\3")
    assert settable_data("geneve", rest + netlink.attribute(_GENEVE_TTL_INHERIT, b"\0")) == rest
    inherits = rest + netlink.attribute(_GENEVE_TTL_INHERIT, b"\1")
    assert settable_data("geneve", inherits) == inherits


def test_a_macvlan_is_given_its_list_at_once() -> None:
    listed = netlink.attribute(5, netlink.attribute(4, bytes(6)))
    found = netlink.parse_attributes(settable_data("macvlan", netlink.number(1, 16) + listed + netlink.number(6, 1)))
    assert found == {1: struct.pack("=I", 16), 5: netlink.attribute(4, bytes(6)), 3: struct.pack("=I", 3)}
    assert settable_data("macvlan", netlink.number(1, 4) + netlink.number(6, 0)) == netlink.number(1, 4)
