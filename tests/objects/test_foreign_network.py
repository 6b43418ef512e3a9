"""A network namespace that whoever restores makes, as container engines do: what was set in the tree's is set in it."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from harness import engine
from harness.events import time_limit_s
from harness.machine import need_commands
from harness.network import ask, enter, namespace
from harness.skips import missing
from harness.workload import Workload
from torpor.base.fds import OwnedFd
from torpor.kernel.namespaces import CLONE_NEWNET, inside
from torpor.kernel.uapi.ethtool_netlink import ETHTOOL_MSG_FEATURES_SET
from torpor.objects.ns.net import ethtool

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]

_LINK = "ip link add eth0 type veth peer name peer0"
#: What is set before the dump; by whoever makes the namespace for the restore; what is asked then, and the answer.
_SETTINGS = {
    "whole": ("core/somaxconn=77 ipv4/ping_group_range=0:10 unix/max_dgram_qlen=8", "",
              "core/somaxconn ipv4/ping_group_range unix/max_dgram_qlen", "77 0:10 8"),
    "interface": ("ipv4/conf/eth0/log_martians=1 ipv6/conf/lo/dad_transmits=3 ipv4/neigh/eth0/gc_stale_time=7", "",
                  "ipv4/conf/eth0/log_martians ipv6/conf/lo/dad_transmits ipv4/neigh/eth0/gc_stale_time", "1 3 7"),
    "router": ("ipv4/ip_forward=NEW", "", "ipv4/conf/eth0/forwarding ipv4/conf/default/forwarding ipv4/ip_forward",
               "NEW NEW NEW"),
    "router's others": ("ipv4/ip_forward=NEW ipv4/conf/all/accept_redirects=1 ipv4/conf/lo/forwarding=OLD", "",
                        "ipv4/conf/all/accept_redirects ipv4/conf/lo/forwarding ipv4/ip_forward", "1 OLD NEW"),
    "ports, lower": ("ipv4/ip_unprivileged_port_start=20 ipv4/ip_local_port_range=30:999", "",
                     "ipv4/ip_unprivileged_port_start ipv4/ip_local_port_range", "20 30:999"),
    "ports, higher": ("ipv4/ip_local_port_range=50000:51000 ipv4/ip_unprivileged_port_start=45000", "",
                      "ipv4/ip_unprivileged_port_start ipv4/ip_local_port_range", "45000 50000:51000"),
    "theirs": ("core/somaxconn=77", "core/somaxconn=99 ipv4/tcp_syncookies=2",
               "core/somaxconn ipv4/tcp_syncookies", "99 2"),
    "nothing set": ("", "core/somaxconn=99", "core/somaxconn", "99"),
}  # fmt: skip


@pytest.mark.parametrize("name", _SETTINGS)
def test_sysctls_are_set_where_whoever_made_the_namespace_has_not(name: str) -> None:
    before, theirs, question, answer = map(_with_new, _SETTINGS[name])
    with namespace(f"{_LINK}; {_set(before)}") as first, namespace(f"{_LINK}; {_set(theirs)}") as second:
        assert _read(second, question) != answer or theirs
        told = _move(first, second)
        assert _read(second, question) == answer
        assert ("stays 99" in told) == (name == "theirs")


@pytest.mark.parametrize("options", [[], ["--weak-sysctls"]])
def test_what_is_not_there_is_told(options: list[str]) -> None:
    with namespace(f"{_LINK}; {_set('ipv4/conf/eth0/log_martians=1')}") as first, namespace() as second:
        assert "ipv4/conf/eth0/log_martians was 1, and there is none" in _move(first, second, options)


def test_our_own_network_is_left_alone() -> None:
    with namespace(_set("core/somaxconn=77")) as first:
        before = _read(os.getpid(), "core/somaxconn")
        assert "not set in this machine's own" in _move(first, os.getpid())
        assert _read(os.getpid(), "core/somaxconn") == before != "77"


@pytest.mark.parametrize("action", ["exit 1", "kill -9 $PPID"], ids=["fails", "killed"])
@pytest.mark.parametrize("when", ["post-setup-namespaces", "post-restore"])
@pytest.mark.parametrize("name", ["whole", "interface", "router", "ports, higher"])
def test_a_restore_that_does_not_come_to_its_end_leaves_it_as_it_was(
    name: str, when: str, action: str, tmp_path: Path
) -> None:
    setting, _, question, answer = map(_with_new, _SETTINGS[name])
    with namespace(f"{_LINK}; {_set(setting)}") as first, namespace(_LINK) as second:
        before = _read(second, question)
        script = tmp_path / "ends"
        script.write_text(f'#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != {when} ] || {{ {action}; }}\n')
        script.chmod(0o755)
        with pytest.raises(engine.EngineError):
            _move(first, second, ["--action-script", str(script)])
        deadline = time.monotonic() + time_limit_s(10)
        while _read(second, question) != before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert _read(second, question) == before != answer
        _move(first, second)
        assert _read(second, question) == answer


_FILTER = "nft 'table ip wall { chain out { type filter hook output priority 0; ip daddr 10.9.9.9 drop; }; }'"
_OTHER_FILTER = "nft 'table ip theirs { chain out { type filter hook output priority 0; }; }'"
_LEGACY_FILTER = "iptables-legacy -A OUTPUT -d 10.9.9.9 -j DROP"


@pytest.mark.parametrize(
    ("filters", "question"), [(_FILTER, "nft list ruleset"), (_LEGACY_FILTER, "iptables-legacy-save")]
)
def test_packet_filters_are_set_where_there_are_none(filters: str, question: str) -> None:
    need_commands({"nft": "nftables", "iptables-legacy": "iptables"})
    with namespace(filters) as first, namespace() as second, namespace(_OTHER_FILTER) as third:
        _move(first, second)
        assert "10.9.9.9" in ask(second, *question.split())
        assert "packet filters stay as whoever made the network has set them" in _move(first, third)
        assert "10.9.9.9" not in ask(third, *question.split())
        assert "theirs" in ask(third, "nft", "list", "ruleset")


@pytest.mark.parametrize("action", ["exit 1", "kill -9 $PPID"], ids=["fails", "killed"])
@pytest.mark.parametrize(
    ("filters", "question"), [(_FILTER, "nft list ruleset"), (_LEGACY_FILTER, "iptables-legacy-save")]
)
def test_packet_filters_are_taken_back(filters: str, question: str, action: str, tmp_path: Path) -> None:
    need_commands({"nft": "nftables", "iptables-legacy": "iptables"})
    script = tmp_path / "ends"
    shown = f"{question} >{tmp_path}/shown"
    script.write_text(
        f'#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" = post-restore ] || exit 0\n'
        f"nsenter --net=/proc/$CRTOOLS_INIT_PID/ns/net {shown}\n{action}\n"
    )
    script.chmod(0o755)
    with namespace(filters) as first, namespace() as second:
        with pytest.raises(engine.EngineError):
            _move(first, second, ["--action-script", str(script)])
        assert "10.9.9.9" in (tmp_path / "shown").read_text()
        command = f"while {question} | grep -q 10.9.9.9; do :; done"
        subprocess.run([*enter(second), "sh", "-c", command], check=True, timeout=time_limit_s(10))
        # It can be tried again.
        _move(first, second)
        assert "10.9.9.9" in ask(second, *question.split())


_ADDED = """
ip link set lo up; ip link add eth0 type veth peer name peer0; ip addr add 10.8.0.2/24 dev eth0; ip link set eth0 up
ip link set peer0 up; ip route add default via 10.8.0.1
"""


@pytest.mark.parametrize(
    ("setup", "told"),
    [
        ("true", ""),
        ("ip link add br0 type bridge", "br0 (interfaces)"),
        ("ip rule add from 10.8.0.2 lookup 200", "policy rules (1)"),
        ("ip -6 rule add from 2001:db8::1 lookup 200", "policy rules (1)"),
        ("ip route add 10.7.0.0/16 via 10.8.0.1", "routes (1)"),
        ("ip neigh add 10.8.0.9 lladdr 02:00:00:00:00:09 dev eth0", "entries of neighbours (1)"),
        ("tc qdisc add dev eth0 root tbf rate 1mbit burst 10k latency 50ms", "queueing disciplines (1)"),
        ("ip addrlabel add prefix 2001:db8::/32 label 99", "labels of addresses (1)"),
        ("ip mptcp limits set subflow 3 add_addr_accepted 4", "endpoints and limits of MPTCP (1)"),
        ("ip sr tunsrc set 2001:db8::9", "source addresses of segment routing"),
    ],
)
def test_what_is_lost_is_told(setup: str, told: str) -> None:
    shell = ["unshare", "--net", "sh", "-c", f'{_ADDED}{setup}; exec "$@"', "sh"]
    with Workload.start("counter", prefix=shell) as workload:
        workload.wait_ready()
        workload.dump(options=["--empty-ns", "net"], leave_running=True)
        log = (workload.images / "dump.log").read_text()
        assert re.findall(r"what they do not make themselves: (.*)", log) == ([told] if told else [])
        workload.expect_pass()


def test_features_that_are_lost_are_told() -> None:
    shell = ["unshare", "--net", "sh", "-c", f'{_ADDED}exec "$@"', "sh"]
    with Workload.start("counter", prefix=shell) as workload:
        workload.wait_ready()
        with OwnedFd(os.open(f"/proc/{workload.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as its:
            if not inside(its.fileno(), CLONE_NEWNET, ethtool.read):
                missing("ethtool's family of generic netlink in the kernel")
            inside(its.fileno(), CLONE_NEWNET, _without_checksums)
        workload.dump(options=["--empty-ns", "net"], leave_running=True)
        assert "make themselves: features of eth0 (ethtool)\n" in (workload.images / "dump.log").read_text()
        workload.expect_pass()


def _without_checksums() -> None:
    ethtool.change(ETHTOOL_MSG_FEATURES_SET, "eth0", {"tx-checksum-ip-generic": b""})


def test_a_namespace_that_a_hook_fills() -> None:
    """The same where a runtime has the tree make one, empty, and its hooks fill it (Docker)."""
    shell = ["unshare", "--net", "sh", "-c", f'{_set("core/somaxconn=77")}; exec "$@"', "sh"]
    with Workload.start("counter", prefix=shell) as workload:
        workload.wait_ready()
        workload.dump(options=["--empty-ns", "net"])
        workload.restore(options=["--empty-ns", "net"])
        assert _read(workload.pid, "core/somaxconn") == "77"
        workload.expect_pass()


def _with_new(text: str) -> str:
    """With what ``ip_forward`` is in a new namespace, which has it from the first of all, and what it is not."""
    with namespace() as pid:
        old = _read(pid, "ipv4/ip_forward")
    return text.replace("OLD", old).replace("NEW", str(1 - int(old)))


def _set(settings: str) -> str:
    """The command that sets all of "name=value name=value"; spaces in values are colons."""
    pairs = [each.split("=") for each in settings.split()]
    return "; ".join(["true", *(f"echo {value.replace(':', ' ')} > /proc/sys/net/{name}" for name, value in pairs)])


def _read(pid: int, names: str) -> str:
    lines = ask(pid, "sh", "-c", f"cd /proc/sys/net; cat {names}").splitlines()
    return " ".join(re.sub(r"\s+", ":", line.strip()) for line in lines)


def _move(first: int, second: int, options: list[str] | None = None) -> str:
    """Dump a program in the network namespace of one process, restore it in that of another; the restore's log."""
    with Workload.start("counter", prefix=enter(first)) as workload:
        workload.wait_ready()
        number = os.stat(f"/proc/{first}/ns/net").st_ino
        workload.dump(options=["--external", f"net[{number}]:theirs"])
        fd = os.open(f"/proc/{second}/ns/net", os.O_RDONLY)
        try:
            given = ["--inherit-fd", f"fd[{fd}]:theirs", *(options or [])]
            workload.runs_as(engine.restore(workload.images, options=given, pass_fds=[fd]))
        finally:
            os.close(fd)
        told = (workload.images / "restore.log").read_text()
        assert os.stat(f"/proc/{workload.pid}/ns/net").st_ino == os.stat(f"/proc/{second}/ns/net").st_ino
        workload.expect_pass()
    return told
