"""Network images: netlink messages in and out, and what is refused of interfaces."""

import struct

import pytest

from torpor.base.errors import RefusedError
from torpor.base.ids import Pid
from torpor.images import kinds
from torpor.images.errors import ImageError
from torpor.images.stores.memory import MemStore
from torpor.kernel import netlink, rtnetlink
from torpor.objects.ns.net import links, raw
from torpor.objects.ns.net.work import external_value


def _link(name: str, kind: str) -> rtnetlink.Link:
    info = netlink.nested(rtnetlink.IFLA_LINKINFO, netlink.text(rtnetlink.IFLA_INFO_KIND, kind)) if kind else b""
    return rtnetlink.parse_link(rtnetlink.link_message(3, netlink.text(rtnetlink.IFLA_IFNAME, name), info, flags=1))


def test_a_link_is_what_its_message_says() -> None:
    link = _link("eth0", "veth")
    assert (link.index, link.name, link.kind, link.flags, link.link, link.link_netnsid) == (
        3,
        "eth0",
        "veth",
        1,
        0,
        None,
    )


@pytest.mark.parametrize(("kind", "why"), [("wireguard", "of kind wireguard"), ("", "that is hardware")])
def test_an_interface_that_cannot_be_made_again_is_refused(kind: str, why: str) -> None:
    found = [_link("odd0", kind)]
    with pytest.raises(RefusedError, match=why) as caught:
        links.check(found, (), Pid(7))
    assert "--external netdev[odd0]" in (caught.value.hint or "")
    links.check(found, ("netdev[odd0]",), Pid(7))


def test_what_an_older_kernel_makes_in_each_namespace_is_no_interface_of_anybodys() -> None:
    links.check(
        [rtnetlink.parse_link(rtnetlink.link_message(3, netlink.text(rtnetlink.IFLA_IFNAME, "tunl0")))], (), Pid(7)
    )


@pytest.mark.parametrize(
    ("external", "value"),
    [(("veth[a]:b@c",), "b@c"), (("veth[a]",), ""), (("veth[ab]:c", "macvlan[a]:d"), None), ((), None)],
)
def test_what_the_user_says_of_an_interface(external: tuple[str, ...], value: str | None) -> None:
    assert external_value(external, "veth", "a") == value


def test_messages_come_back_as_they_were() -> None:
    store = MemStore()
    messages = [(20, b"12345678"), (20, b"123456789")]
    raw.store(store, kinds.IFADDR, 4, messages, raw.ADDRESSES)
    assert [each[1][:9].rstrip(b"\0") for each in raw.load(store, kinds.IFADDR, 4, [(20, 8)], raw.ADDRESSES)] == [
        b"12345678",
        b"123456789",
    ]
    assert raw.load(store, kinds.ROUTE, 4, [(24, 12)], raw.ROUTES) == []


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\1\2\3\4", "does not begin"),
        (struct.pack("<I", raw.ADDRESSES) + netlink.encode(24, 0, bytes(12)), "does not belong"),
        (struct.pack("<I", raw.ADDRESSES) + netlink.encode(20, 0, bytes(4)), "does not belong"),
        (struct.pack("<I", raw.ADDRESSES) + netlink.encode(20, 0, bytes(12))[:-4], "within a message"),
    ],
)
def test_damaged_messages_are_an_error_of_the_image(data: bytes, why: str) -> None:
    store = MemStore()
    with store.open_write(kinds.IFADDR.file_name(4)) as stream:
        stream.write(data)
    with pytest.raises(ImageError, match=why):
        raw.load(store, kinds.IFADDR, 4, [(20, 8)], raw.ADDRESSES)


def test_an_attribute_is_found_within_others() -> None:
    data = bytes(4) + netlink.text(1, "x") + netlink.nested(4, netlink.nested(1, netlink.number(5, 9)))
    place = netlink.find(data, 4, (4, 1, 5))
    assert place is not None
    assert data[slice(*place)] == struct.pack("=I", 9)
    assert netlink.find(data, 4, (4, 2)) is None
    assert netlink.find(data[:-1], 4, (4, 1, 5)) is None
