"""The differential table of socket options: every number of every level, asked of the kernel, before and after.

Whatever can be set is set to something that it was not.  What does not come back is in ``NOT_THE_SAME``, with a reason.
``pytest -s`` prints the table.
"""

import ctypes
import os
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from harness.program import Program

LEVELS = {
    "SOL_SOCKET": 1, "IP": 0, "IPV6": 41, "TCP": 6, "UDP": 17, "UDPLITE": 136, "RAW": 255, "ICMPV6": 58, "NETLINK": 270,
    "PACKET": 263, "MPTCP": 284, "VSOCK": 40,
}  # fmt: skip
NUMBERS = range(128)
MOMENT, MEANINGLESS = "state of the moment", "a stream has no use for it, and takes none"
CONNECTED = ("tcp4-connected", "tcp4-accepted", "tcp6-connected", "tcp6-accepted")

#: Option: reason, and the sockets that it holds for (none named: all).
NOT_THE_SAME: Mapping[tuple[str, int], tuple[str, tuple[str, ...]]] = {
    ("SOL_SOCKET", 49): (f"INCOMING_CPU: {MOMENT}, once packets come", CONNECTED),
    ("SOL_SOCKET", 55): (f"MEMINFO: {MOMENT}", ()),
    ("SOL_SOCKET", 56): (f"INCOMING_NAPI_ID: {MOMENT}", ()),
    ("IP", 9): (f"PKTOPTIONS: {MOMENT}, of the packet that came last", ()),
    ("IP", 14): (f"MTU: {MOMENT}, of a route", ()),
    ("IP", 33): (f"MULTICAST_TTL: {MEANINGLESS}", CONNECTED),
    ("IPV6", 6): (f"2292PKTOPTIONS: {MOMENT}", ()),
    ("IPV6", 17): (f"MULTICAST_IF: {MEANINGLESS}", CONNECTED),
    ("IPV6", 18): (f"MULTICAST_HOPS: {MEANINGLESS}", CONNECTED),
    ("IPV6", 24): (f"MTU: {MOMENT}, of a route", ()),
    ("IPV6", 26): ("V6ONLY: a connection's own address is bound at the restore, and it leads nowhere else", CONNECTED),
    ("IPV6", 61): (f"PATHMTU: {MOMENT}, of a route", ()),
    ("TCP", 2): (f"MAXSEG: {MOMENT}, once connected", CONNECTED),
    ("TCP", 11): (f"INFO: {MOMENT}", ()),
    ("TCP", 12): (f"QUICKACK: {MOMENT}, once connected", CONNECTED),
    ("TCP", 24): (f"TIMESTAMP: {MOMENT}", ()),
    ("TCP", 26): (f"CC_INFO: {MOMENT}", ()),
    ("MPTCP", 1): (f"INFO: {MOMENT}", ()),
    ("MPTCP", 4): (f"FULL_INFO: {MOMENT}", ()),
}

#: Not set: repair mode, what makes another socket of it, what takes the machine's packet filters, corks, rings.
NEVER_SET = {
    *(("TCP", number) for number in (19, 20, 21, 22, 29, 35)), ("UDP", 1), ("UDPLITE", 1), ("IPV6", 1),
    *((level, number) for level in ("IP", "IPV6") for number in (64, 65, 96, 97)),
    *(("SOL_SOCKET", number) for number in (26, 27, 50)), ("PACKET", 5), ("PACKET", 13),
}  # fmt: skip
#: Not asked: identities, which are new, and what opens a descriptor.
NEVER_ASKED = {("SOL_SOCKET", 57), ("SOL_SOCKET", 71), ("SOL_SOCKET", 77)}

_MAKER = """
import os, signal, socket, sys
held = []
def say(name, made):
    held.append(made)
    print(name, made.fileno(), flush=True)
def bound(family, *rest):
    made = socket.socket(family, *rest)
    made.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
    return made
with open("/proc/sys/net/ipv4/ping_group_range", "w") as stream:
    stream.write("0 0")
for n, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
    say(f"tcp{n}-new", socket.socket(family, socket.SOCK_STREAM))
    say(f"tcp{n}-bound", bound(family, socket.SOCK_STREAM))
    listener = bound(family, socket.SOCK_STREAM)
    listener.listen(5)
    say(f"tcp{n}-listening", listener)
    near = socket.socket(family, socket.SOCK_STREAM)
    near.connect(listener.getsockname()[:2])
    say(f"tcp{n}-connected", near)
    say(f"tcp{n}-accepted", listener.accept()[0])
    say(f"udp{n}-new", socket.socket(family, socket.SOCK_DGRAM))
    receiver = bound(family, socket.SOCK_DGRAM)
    say(f"udp{n}-bound", receiver)
    sender = socket.socket(family, socket.SOCK_DGRAM)
    sender.connect(receiver.getsockname()[:2])
    say(f"udp{n}-connected", sender)
    say(f"raw{n}", socket.socket(family, socket.SOCK_RAW, 253))
    say(f"raw{n}-icmp", socket.socket(family, socket.SOCK_RAW, 1 if n == 4 else 58))
    for name, kind, protocol in (("udplite", 2, 136), ("mptcp", 1, 262), ("ping", 2, 1 if n == 4 else 58)):
        try:
            say(f"{name}{n}", socket.socket(family, kind, protocol))
        except OSError as error:
            print("#", name, n, error)
say("packet-raw", socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
say("packet-dgram", socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0))
say("netlink-route", socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
say("netlink-generic", socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 16))
uevents = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)
uevents.bind((0, 0))
say("netlink-bound", uevents)
for name, kind in (("stream", 1), ("dgram", 2), ("seqpacket", 5)):
    for end, made in zip(("near", "far"), socket.socketpair(socket.AF_UNIX, kind)):
        say(f"unix-{name}-{end}", made)
    say(f"unix-{name}-new", socket.socket(socket.AF_UNIX, kind))
    for state in ("bound", "listening")[:1 if kind == 2 else 2]:
        made = socket.socket(socket.AF_UNIX, kind)
        made.bind(f"\\0walk-{name}-{state}")
        if state == "listening":
            made.listen(3)
        say(f"unix-{name}-{state}", made)
print("ready", flush=True)
signal.pause()
"""

_libc = ctypes.CDLL(None, use_errno=True)
_MAX = 2048
Values = dict[tuple[str, int], bytes]


class Sockets(Program):
    """The program, and its sockets by our duplicates."""

    dump_options = restore_options = ("--tcp-established",)

    def begin(self) -> None:
        """Start it in a network of its own."""
        self.start(
            ["unshare", "--net", "sh", "-c", f'ip link set lo up && exec "{sys.executable}" -c "$0"', _MAKER],
            env={"PYTHONDONTWRITEBYTECODE": "1"},
        )
        self.wait_log("(?m)^ready$")
        lines = [line.split() for line in self.log().splitlines()]
        assert lines[-1] == ["ready"], self.log()
        self.numbers = {line[0]: int(line[1]) for line in lines if len(line) == 2}

    @contextmanager
    def duplicates(self) -> Iterator[dict[str, int]]:
        """All sockets."""
        pidfd = os.pidfd_open(self.pid)
        found = {name: _libc.syscall(438, pidfd, number, 0) for name, number in self.numbers.items()}
        try:
            assert min(found.values()) >= 0
            yield found
        finally:
            for fd in (pidfd, *found.values()):
                os.close(fd)


def _ask(fd: int, level: str, number: int) -> bytes | None:
    room, length = ctypes.create_string_buffer(_MAX), ctypes.c_uint(_MAX)
    if _libc.getsockopt(fd, LEVELS[level], number, room, ctypes.byref(length)):
        return None
    return room.raw[: length.value]


def _walk(fd: int) -> Values:
    keys = ((level, number) for level in LEVELS for number in NUMBERS)
    return {key: value for key in keys if key not in NEVER_ASKED and (value := _ask(fd, *key)) is not None}


def _wishes(present: bytes) -> Iterator[bytes]:
    """What it might be set to; little more than it was comes first: a connection should not end by short times."""
    if len(present) == 1:
        yield from (b"\1", b"\2", b"\0")
    if len(present) == 4:
        (value,) = struct.unpack("i", present)
        for number in (value + 1, 1, value * 2, 3, 1000, value - 1, value // 2, 0, 1 << 20):
            if abs(number) < 1 << 31:
                yield struct.pack("i", number)
    yield struct.pack("i", 1)
    if len(present) == 8:
        yield from (struct.pack("Q", 123456), struct.pack("ii", 1, 5))
    if len(present) == 16:
        yield from (struct.pack("QQ", 5, 0), b"reno\0", b"lo\0")
    # Headers of IPv6, a route by way of mobile IP to where it goes anyway (7.x tells a connection at once, in SO_ERROR,
    # that there is none to ::, of the first packet, which is the restore's), an address, an interface, options of IPv4,
    # a key.
    yield from (bytes.fromhex("0000010400000000"), struct.pack("8B15xB", 0, 2, 2, 1, 0, 0, 0, 0, 1))
    yield from (bytes((0x7F, 0, 0, 1)), bytes((0, 0, 0, 1)), bytes((0x94, 4, 0, 0)), bytes(range(16)), b"\xff" * 32)


def _change(fd: int) -> set[tuple[str, int]]:
    """Set whatever can be set to another value; returns what that was."""
    changed = set()
    for key in _walk(fd):
        level, number = key
        present = _ask(fd, level, number)
        if key in NEVER_SET or present is None:
            continue
        for wish in _wishes(present):
            if not _libc.setsockopt(fd, LEVELS[level], number, wish, len(wish)) and _ask(fd, *key) not in (
                present,
                None,
            ):
                changed.add(key)
                break
    return changed


@pytest.mark.root
def test_every_option_comes_back() -> None:
    with Sockets() as program:
        program.begin()
        with program.duplicates() as sockets:
            changed = {name: _change(fd) for name, fd in sockets.items()}
            before = {name: _walk(fd) for name, fd in sockets.items()}
        assert sum(map(len, changed.values())) > 1000, "hardly anything could be set"
        program.sleep_and_wake()
        with program.duplicates() as sockets:
            after = {name: _walk(fd) for name, fd in sockets.items()}
    lost = []
    for name, values in before.items():
        for key in sorted({*values, *after[name]}):
            was, now = values.get(key), after[name].get(key)
            if was == now:
                continue
            reason, holders = NOT_THE_SAME.get(key, ("", ()))
            if not reason or (holders and name not in holders):
                lost.append(f"{name}: {key[0]} {key[1]} was {_hex(was)}, is {_hex(now)}")
            print(f"{name:24} {key[0]:10} {key[1]:3} {reason or 'LOST'}")
    n_values, n_set = (sum(map(len, table.values())) for table in (before, changed))
    print(f"{len(before)} sockets, {n_values} answers, {n_set} of them set")
    assert not lost, "\n".join(lost)


def _hex(value: bytes | None) -> str:
    return "absent" if value is None else value.hex()
