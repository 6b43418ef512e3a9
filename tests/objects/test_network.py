"""Network namespaces: what is in them is there again, and what leads out of them is joined to the outside again."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import engine
from harness.network import ask, differences, enter, namespace, picture, run, sysctl, unshared
from harness.skips import missing
from harness.workload import Workload

pytestmark = pytest.mark.root

_INSIDE = (
    """
ip link set lo up
ip addr add 10.9.0.1/32 dev lo
ip link add br0 type bridge forward_delay 400 ageing_time 7000 mcast_snooping 0
ip link add name v0 index 20 mtu 1400 address 02:00:00:00:00:20 txqueuelen 77 type veth \
    peer name v1 index 21 address 02:00:00:00:00:21
ip link add ifb9 type ifb
ip link add mv0 link v1 type macvlan mode bridge
ip link add vx0 type vxlan id 7 remote 10.1.0.2 dstport 4789 local 10.1.0.1
ip link set v0 master br0
ip link set v0 type bridge_slave hairpin on learning off
ip link set br0 alias main address 02:00:00:00:00:10
sysctl -qw net.ipv6.conf.v1.accept_dad=0 net.ipv6.conf.br0.accept_dad=0
ip link set br0 up
ip link set v0 up
ip link set v1 up
ip link set ifb9 up promisc on
ip addr add 10.1.0.1/24 brd + dev br0 label br0:one
ip addr add 10.1.0.9/24 dev br0 valid_lft 5000 preferred_lft 4000
ip addr add 10.2.0.1/16 dev v1 noprefixroute
ip addr add fd00::1/64 dev br0 nodad
ip addr del 127.0.0.1/8 dev lo
ip route add 10.3.0.0/16 via 10.1.0.2 metric 5
ip route add 10.4.0.0/16 dev v1 table 100
ip route add 10.5.0.0/16 nexthop via 10.1.0.3 weight 2 nexthop via 10.1.0.4
ip route add blackhole 10.6.0.0/16 proto static
ip -6 route add fd01::/64 via fd00::2
ip route add default via 10.1.0.2
ip rule add from 10.1.0.0/24 lookup 100 pref 50
ip rule add fwmark 3 iif br0 blackhole
ip rule del lookup default
ip -6 rule add from fd00::/64 lookup 100
ip neigh add 10.1.0.77 lladdr 02:00:00:00:00:77 dev br0 nud permanent
ip neigh add proxy 10.1.0.78 dev br0
ip maddr add 33:33:00:00:00:77 dev v1
ip maddr add 01:00:5e:01:02:03 dev v0
ip addrlabel add prefix fd00::/16 label 99
ip addrlabel add prefix fd01::/16 dev br0 label 98
ip addrlabel del prefix 3ffe::/16 label 12
bridge fdb add 02:00:00:00:00:99 dev v0 master static
bridge fdb add 02:00:00:00:00:98 dev v0 master static sticky
bridge fdb add 02:00:00:00:00:97 dev v0 master permanent
bridge fdb add 02:00:00:00:00:96 dev br0 self
ip token set ::7:1 dev v1
""".strip()
    .replace("\\\n", "")
    .replace("\n", "; ")
)

_SYSCTLS = {
    "net/ipv4/conf/all/rp_filter": "2",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv4/conf/br0/proxy_arp": "1",
    "net/ipv4/conf/v1/forwarding": "1",
    "net/ipv6/conf/v0/disable_ipv6": "1",
    "net/ipv6/conf/br0/hop_limit": "33",
    "net/ipv4/ping_group_range": "5\t77",
    "net/unix/max_dgram_qlen": "21",
    "net/core/somaxconn": "1234",
    "net/ipv4/ip_unprivileged_port_start": "90",
    "net/ipv4/tcp_syn_retries": "3",
    "net/ipv6/conf/all/ndisc_tclass": "8",
    "net/ipv6/conf/default/addr_gen_mode": "1",
    "net/ipv6/conf/br0/enhanced_dad": "0",
    "net/ipv4/conf/br0/bc_forwarding": "1",
    "net/ipv4/neigh/br0/mcast_solicit": "7",
    "net/ipv6/neigh/v1/base_reachable_time_ms": "31004",
}

#: Nobody listens there, but somebody must say so.
_KNOCK = """
import errno, socket, sys
knocking = socket.socket()
knocking.settimeout(20)
assert knocking.connect_ex((sys.argv[1], 9)) == errno.ECONNREFUSED
"""


#: A hook for which all is well until the very end.
_SAYS_NO = '#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != post-restore ] || { echo says no >&2; exit 1; }'


@contextmanager
def _workload(setup: str) -> Iterator[Workload]:
    with Workload.start("counter", prefix=unshared(setup)) as workload:
        workload.wait_ready()
        yield workload


def test_what_is_in_a_network_namespace_is_there_again() -> None:
    settings = " ".join(f'"{path.replace("/", ".")}={value}"' for path, value in _SYSCTLS.items())
    with _workload(f"{_INSIDE}; sysctl -qw {settings}") as workload:
        before = picture(workload.pid)
        more = _tables_and_tokens(workload.pid)
        values = sysctl(workload.pid, *_SYSCTLS)
        received = _received(workload.pid)
        assert received == ["20: v0 link  01:00:5e:01:02:03", "21: v1 link  33:33:00:00:00:77"]
        assert values == list(_SYSCTLS.values())
        workload.dump()
        workload.restore()
        changes = differences(before, picture(workload.pid))
        if changes:
            pytest.fail(changes)
        assert "Warn" not in (workload.images / "restore.log").read_text()
        assert sysctl(workload.pid, *_SYSCTLS) == values
        assert _tables_and_tokens(workload.pid) == more
        # A kernel whose bridges know VLANs has each entry once more, for the one that all ports are in.
        assert len([line for line in more if " vlan 1 " not in line]) == 5
        assert _received(workload.pid) == received
        workload.expect_pass()


_LESS_USUAL = (
    """
sysctl -qw net.ipv6.conf.default.accept_dad=0
ip link add v0 type veth peer name v1
ip link add v2 type veth peer name v3
ip link add br0 numtxqueues 3 numrxqueues 2 address 02:00:00:00:00:10 type bridge
ip link set br0 type bridge group_address 01:80:c2:00:00:05
ip link set v0 master br0
ip link set v2 master br0
ip link set v0 type bridge_slave backup_port v2
ip link set v1 gso_max_size 32768 gso_max_segs 100 gro_max_size 30000 broadcast ff:ff:ff:ff:ff:00
ip link set v3 gso_max_size 150000 gro_max_size 200000 mode dormant
ip link add ifb9 numtxqueues 4 numrxqueues 2 type ifb
ip link add mv0 link v1 type macvlan mode source
ip link set mv0 type macvlan macaddr add 00:11:22:33:44:55
ip link set mv0 type macvlan macaddr add 00:11:22:33:44:66
ip link set mv0 protodown on
ip link add vx0 type vxlan id 7 remote 10.1.0.2 dstport 4789
ip link set vx0 protodown on protodown_reason 3 on
ip link add v4 type veth peer name v5
ip link set v4 up
ip link set v5 up
ip addr add 10.1.0.1/24 dev v5
ip neigh add 10.1.0.5 lladdr 02:00:00:00:00:05 dev v5 nud noarp
ip neigh add 10.1.0.6 lladdr 02:00:00:00:00:06 dev v5 nud reachable extern_learn
ip neigh add 10.1.0.7 dev v5 managed
ip -6 neigh add fd00::5 lladdr 02:00:00:00:00:05 dev v5 nud noarp
bridge fdb add 02:00:00:00:00:99 dev v2 master extern_learn
""".strip().replace("\n", "; ")
)  # fmt: skip


def test_what_few_set_of_interfaces() -> None:
    with _workload(_LESS_USUAL) as workload:
        before, entered = picture(workload.pid), _entered(workload.pid)
        assert all(word in before["ip -j -d link"] for word in ("proto_down_reason", "DORMANT", "33:44:66", "150000"))
        workload.dump()
        workload.restore()
        changes = differences(before, picture(workload.pid))
        if changes:
            pytest.fail(changes)
        assert _entered(workload.pid) == entered
        assert "Warn" not in (workload.images / "restore.log").read_text()
        workload.expect_pass()


def _entered(pid: int) -> list[tuple[str, ...]]:
    """Neighbours that somebody has entered; those of a routing daemon grow old, and what is looked for is not there."""
    shown = ask(pid, "ip", "-d", "neigh", "show", "nud", "all") + ask(pid, "bridge", "fdb")
    words = [tuple(line.split()) for line in shown.splitlines() if "02:00:00" in line or "manage" in line]
    return sorted(tuple(word for word in each if word not in _STATES) for each in words)


_STATES = ("REACHABLE", "STALE", "DELAY", "PROBE", "INCOMPLETE", "FAILED")


def _tables_and_tokens(pid: int) -> list[str]:
    """What bridges were told for good, and what the addresses that routers offer are to end with."""
    table = ask(pid, "bridge", "-d", "fdb").splitlines()
    tokens = ask(pid, "ip", "token").splitlines()
    return sorted([line.strip() for line in (*table, *tokens) if line.startswith(("02:00:00:00:00:9", "token ::0.7"))])


def _received(pid: int) -> list[str]:
    """The link-layer multicast addresses that somebody has an interface receive."""
    lines, interface = [], ""
    for line in ask(pid, "ip", "maddr").splitlines():
        if not line.startswith("\t"):
            interface = " ".join(line.split())
        elif "static" in line:
            lines.append(f"{interface} {line.split(' users ')[0].removesuffix(' static').strip()}")
    return sorted(lines)


def _need(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            missing(f"the command {tool}")


_RULESET = """
table inet t {
    set s { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2 }
    }
    map m { type inet_service : verdict; elements = { 1 : accept, 2 : jump other }
    }
    counter seen { packets 5 bytes 100
    }
    chain other { counter name seen
    }
    chain c { type filter hook input priority 5; policy accept;
        ip saddr @s counter drop
        tcp dport vmap @m
        meta l4proto { tcp, udp } th dport { 7, 9 } drop
        ct state established accept
    }
}
"""
_IPTABLES = """
*nat
-A OUTPUT -d 127.0.0.11/32 -p tcp -m tcp --dport 53 -j DNAT --to-destination 127.0.0.11:3553
COMMIT
*filter
-A INPUT ! -p icmp -m comment --comment hello -j ACCEPT
-A INPUT -p udp -m multiport --dports 1,2,3 -m addrtype --dst-type LOCAL -j DROP
COMMIT
"""


def _rules(pid: int) -> list[str]:
    commands = (
        ("iptables-legacy", "-t", "nat", "-S"), ("ip6tables-legacy", "-S"), ("nft", "list", "ruleset"),
        ("iptables-nft", "-t", "nat", "-S"), ("iptables-nft", "-S"),
    )  # fmt: skip
    return [ask(pid, *command) for command in commands]


def test_packet_filters_are_there_again() -> None:
    _need("nft", "iptables-legacy", "ip6tables-legacy", "iptables-nft")
    with _workload("ip link set lo up") as workload:
        run(workload.pid, ["iptables-legacy-restore"], "*nat\n-A POSTROUTING -o lo -j MASQUERADE\nCOMMIT\n")
        run(workload.pid, ["ip6tables-legacy-restore"], "*filter\n-A INPUT -p tcp --dport 9 -j DROP\nCOMMIT\n")
        run(workload.pid, ["nft", "-f", "-"], _RULESET)
        run(workload.pid, ["iptables-nft-restore"], _IPTABLES)
        before = _rules(workload.pid)
        for shown, wanted in zip(before, ("MASQUERADE", "dport 9", "10.0.0.2", "DNAT", "hello"), strict=True):
            assert wanted in shown
        workload.dump()
        workload.restore()
        assert _rules(workload.pid) == before
        workload.expect_pass()


def test_packet_filters_are_restored_from_their_listing_as_well() -> None:
    _need("nft")
    with _workload("ip link set lo up") as workload:
        run(workload.pid, ["nft", "-f", "-"], _RULESET)
        before = ask(workload.pid, "nft", "list", "ruleset")
        workload.dump()
        for image in workload.images.glob("torpor-nft-*"):
            image.unlink()
        workload.restore()
        assert ask(workload.pid, "nft", "list", "ruleset") == before
        workload.expect_pass()


#: A connection that is followed: its tuple is known long after its ends are closed.
_CONNECT = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
near = socket.create_connection(listener.getsockname())
far, _ = listener.accept()
"""


def test_followed_connections_are_followed_again() -> None:
    _need("nft")
    with _workload("ip link set lo up") as workload:
        run(workload.pid, ["nft", "-f", "-"], "table inet t {\nchain c {\ntype filter hook input priority 0;\n"
            "ct state established accept\n}\n}\n")  # fmt: skip
        ask(workload.pid, sys.executable, "-c", _CONNECT)
        before = _connections(workload.pid)
        assert len(before) == 1
        workload.dump()
        workload.restore()
        assert _connections(workload.pid) == before
        workload.expect_pass()


def _connections(pid: int) -> list[str]:
    """Ports of the TCP connections that are followed."""
    lines = ask(pid, "cat", f"/proc/{pid}/net/nf_conntrack").splitlines()
    return [" ".join(word for word in line.split() if "port=" in word) for line in lines if " tcp " in line]


@contextmanager
def _world() -> Iterator[int]:
    """A namespace with a bridge, in which the engine then works."""
    with namespace("ip link set lo up; ip link add outer type bridge; ip link set outer up") as world:
        with engine.using([*enter(world), *engine.command()]):
            yield world


def _address(pid: int, name: str) -> str:
    return ask(pid, "ip", "-br", "-4", "addr", "show", "dev", name)


def test_a_pair_that_leads_outside_is_made_together_with_its_outer_end() -> None:
    with _world() as world:
        setup = f"ip link add eth0 index 40 type veth peer name out0 netns {world}; ip link set eth0 up"
        with _workload(f"{setup}; ip addr add 10.8.0.2/24 dev eth0") as workload:
            ask(world, "ip", "link", "set", "out0", "master", "outer", "up")
            workload.dump()
            with pytest.raises(engine.EngineError, match=r"--external veth\[eth0\]:NAME"):
                engine.restore(workload.images)
            workload.restore(options=["--external", "veth[eth0]:out0@outer"])
            assert "10.8.0.2/24" in _address(workload.pid, "eth0")
            assert "master outer" in ask(world, "ip", "link", "show", "dev", "out0")
            ask(world, "ip", "addr", "add", "10.8.0.1/24", "dev", "outer")
            ask(world, sys.executable, "-c", _KNOCK, "10.8.0.2")
            workload.expect_pass()


def test_an_address_that_was_proved_is_not_proved_again() -> None:
    with _world() as world:
        setup = (
            f"ip link add eth0 type veth peer name out0 netns {world}; sysctl -qw net.ipv6.conf.eth0.accept_dad=0; "
            "ip link set eth0 up; ip addr add fd00::2/64 dev eth0; "
            "while ip -6 addr show tentative | grep -q inet6; do :; done; sysctl -qw net.ipv6.conf.eth0.accept_dad=1"
        )
        with _workload(setup) as workload:
            workload.dump()
            workload.restore(options=["--external", "veth[eth0]:out1"])
            assert sysctl(workload.pid, "net/ipv6/conf/eth0/accept_dad") == ["1"]
            assert "fd00::2" in ask(workload.pid, "ip", "-6", "addr", "show", "dev", "eth0")
            assert ask(workload.pid, "ip", "-6", "addr", "show", "tentative") == ""
            workload.expect_pass()


def test_a_macvlan_is_put_on_an_interface_of_ours() -> None:
    show = ("ip", "-d", "-o", "link", "show", "dev", "mv0")
    with _world() as world, _workload("ip link set lo up") as workload:
        ask(world, "ip", "link", "add", "mv0", "link", "outer", "type", "macvlan", "mode", "bridge")
        ask(world, "ip", "link", "set", "mv0", "netns", str(workload.pid))
        ask(workload.pid, "ip", "link", "set", "mv0", "up")
        before = ask(workload.pid, *show)
        assert "macvlan mode bridge" in before
        workload.dump()
        with pytest.raises(engine.EngineError, match=r"--external macvlan\[mv0\]"):
            engine.restore(workload.images)
        workload.restore(options=["--external", "macvlan[mv0]:outer"])
        assert ask(workload.pid, *show) == before
        workload.expect_pass()


def test_an_interface_of_ours_can_take_the_place_of_one() -> None:
    with _world() as world:
        setup = f"ip link add eth0 index 40 address 02:00:00:00:00:40 type veth peer name out0 netns {world}"
        with _workload(f"{setup}; ip link set eth0 up; ip addr add 10.8.0.2/24 dev eth0") as workload:
            workload.dump()
            ask(world, "ip", "link", "add", "made", "type", "veth", "peer", "name", "far")
            hook = workload.base / "hook"
            hook.write_text(_SAYS_NO)
            hook.chmod(0o700)
            with pytest.raises(engine.EngineError, match="says no"):
                engine.restore(
                    workload.images, options=["--external", "netdev[eth0]:made", "--action-script", str(hook)]
                )
            ask(world, "ip", "link", "show", "dev", "made")
            workload.restore(options=["--external", "netdev[eth0]:made"])
            shown = ask(workload.pid, "ip", "-o", "link", "show", "dev", "eth0")
            assert shown.startswith("40: eth0@") and "02:00:00:00:00:40" in shown
            assert "10.8.0.2/24" in _address(workload.pid, "eth0")
            workload.expect_pass()


def test_an_interface_that_a_hook_has_put_there_is_taken(tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    with _world() as world:
        setup = f"ip link add eth0 index 40 address 02:00:00:00:00:40 type veth peer name out0 netns {world}"
        with _workload(f"{setup}; ip link set eth0 up; ip addr add 10.8.0.2/24 dev eth0") as workload:
            workload.dump()
            hook.write_text(
                '#!/bin/sh -e\n[ "$CRTOOLS_SCRIPT_ACTION" = setup-namespaces ] || exit 0\n'
                "ip link add name eth0 netns $CRTOOLS_INIT_PID type veth peer name out1\n"
                "ip link set out1 up master outer\n"
            )
            hook.chmod(0o755)
            workload.restore(options=["--action-script", str(hook)])
            shown = ask(workload.pid, "ip", "-o", "link", "show", "dev", "eth0")
            assert shown.startswith("40: eth0@") and "02:00:00:00:00:40" in shown
            ask(world, "ip", "addr", "add", "10.8.0.1/24", "dev", "outer")
            ask(world, sys.executable, "-c", _KNOCK, "10.8.0.2")
            workload.expect_pass()


@pytest.mark.parametrize("state", ["up", "down"])
def test_a_namespace_can_be_left_empty(state: str) -> None:
    """But for what is its own: a program talks to itself over the loopback interface."""
    with _workload(f"ip link add br0 type bridge; ip link set lo {state}") as workload:
        before = ask(workload.pid, "ip", "-br", "address", "show", "lo")
        workload.dump(options=["--empty-ns", "net"])
        workload.restore(options=["--empty-ns", "net"])
        assert ask(workload.pid, "ip", "-o", "link").count("\n") == 1
        assert ask(workload.pid, "ip", "-br", "address", "show", "lo") == before
        workload.expect_pass()
