"""What files of /proc/net say of interfaces."""

from torpor.kernel.netdevice import parse_multicast


def test_multicast_addresses() -> None:
    """As Linux 5.10 shows them; of a tap device that has become of a kind without addresses, none."""
    text = "4    v0              1     0     333300000001\n4    v0              2     1     01005e000007\n"
    text += "7    tap0            1     0     \n7    tap0            1     1     \n"
    assert parse_multicast(text) == {4: [bytes.fromhex("01005e000007")]}
