"""Packets made by hand, against ones that others have made."""

import socket
import struct

from torpor.kernel import nftables, packets


def _sum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data + bytes(len(data) % 2)))
    return (total & 0xFFFF) + (total >> 16)


def test_tcp_over_ipv4() -> None:
    way = packets.Way(socket.inet_aton("192.0.2.1"), 80, socket.inet_aton("198.51.100.7"), 40000)
    packet = packets.tcp(way, 0x1_0000_0001, 0xFFFFFFFF, packets.FIN | packets.ACK, 1 << 20)
    assert len(packet) == 40
    assert _sum(packet[:20]) == 0xFFFF
    assert packet[12:20] == way.source + way.target
    ports = struct.unpack("!HHIIBBHHH", packet[20:])
    assert ports[:7] == (80, 40000, 1, 0xFFFFFFFF, 0x50, 0x11, 0xFFFF)
    assert _sum(way.source + way.target + struct.pack("!HH", 6, 20) + packet[20:]) == 0xFFFF


def test_udp_over_ipv6() -> None:
    way = packets.Way(bytes(15) + b"\1", 53, bytes(15) + b"\2", 1024)
    packet = packets.udp(way, b"odd")
    version, length, protocol = struct.unpack("!IHB", packet[:7])
    assert (version >> 28, length, protocol) == (6, 11, socket.IPPROTO_UDP)
    assert struct.unpack("!HHH", packet[40:46]) == (53, 1024, 11)
    assert packet[48:] == b"odd"
    assert _sum(way.source + way.target + struct.pack("!II", 11, 17) + packet[40:] + b"\0") == 0xFFFF


def test_a_batch_of_nftables_is_framed() -> None:
    batch = nftables.batch([nftables.new_table("one"), nftables.delete_table("one")])
    kinds = []
    at = 0
    while at < len(batch):
        length, kind = struct.unpack_from("=IH", batch, at)
        assert length % 4 == 0
        kinds.append(kind)
        at += length
    assert kinds == [0x10, 0xA00, 0xA02, 0x11]


def test_a_connection_is_a_key_of_padded_parts() -> None:
    key = nftables.connection_key(b"\1\2\3\4", 80, b"\5\6\7\x08", 443)
    assert key == b"\1\2\3\4\0\x50\0\0\5\6\7\x08\1\xbb\0\0"
