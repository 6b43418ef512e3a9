"""Frames that tell where an address is now, byte by byte as the standards have them."""

import socket

from torpor.kernel import announce
from torpor.kernel.packets import checksum

_MAC = bytes.fromhex("020000007764")


def test_a_gratuitous_arp() -> None:
    frame = announce.arp(_MAC, socket.inet_aton("10.77.0.100"))
    assert frame.hex() == (
        "ffffffffffff" "020000007764" "0806"
        "0001" "0800" "06" "04" "0001" "020000007764" "0a4d0064" "000000000000" "0a4d0064"
    )  # fmt: skip


def test_an_unsolicited_neighbour_advertisement() -> None:
    address = socket.inet_pton(socket.AF_INET6, "fd00::100")
    frame = announce.advertise(_MAC, address)
    assert frame[:14].hex() == "33330000000102000000776486dd"
    assert frame[14:22].hex() == "6000000000203aff"
    assert frame[22:38] == address
    assert frame[54:].hex() == f"8800{frame[56:58].hex()}20000000{address.hex()}0201{_MAC.hex()}"
    # With its checksum in place all of it sums up to nothing (RFC 1071).
    pseudo = address + frame[38:54] + bytes([0, 0, 0, 32, 0, 0, 0, 58])
    assert checksum(pseudo + frame[54:]) == 0
