"""Names out of images that would lead elsewhere, refused by the functions that use them."""

import os
import socket
import stat
from pathlib import Path

import pytest

from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel.idmap import IDENTITY
from torpor.kernel.sockets import Socket
from torpor.objects.cgroup import membership, model, properties
from torpor.objects.files import paths
from torpor.objects.files.socket import options
from torpor.objects.ns.mnt import filesystems, make
from torpor.objects.ns.net import firewall


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/b",
        "..",
        ".",
        "release_agent",
        "cgroup.kill",
        "devices.allow",
        "memory",
        "cpu.shares",
    ],
)
def test_no_property(name: str) -> None:
    with pytest.raises(ImageError, match="properties"):
        properties.check_name(name, "memory")


@pytest.mark.parametrize(
    "name", ["memory.max", "cgroup.clone_children", "notify_on_release", "tasks", "memory.new_one"]
)
def test_a_property(name: str) -> None:
    properties.check_name(name, "memory")
    properties.check_name(name, "")


@pytest.mark.parametrize(
    "name", ["memory,release_agent=/x", "name=x,release_agent=/x", "../cpu", "/", "a b", "name=a/b"]
)
def test_no_hierarchy(name: str) -> None:
    with pytest.raises(ImageError):
        model.check_hierarchy(name)
    with pytest.raises(ImageError):
        membership.load_set(m.cg_set_entry(id=1, ctls=[m.cg_member_entry(name=name, path="/")]))


@pytest.mark.parametrize("name", ["", "cpu,cpuacct", "name=systemd", "name=zdtmtst.defaultroot", "net_cls", "hugetlb"])
def test_a_hierarchy(name: str) -> None:
    model.check_hierarchy(name)


def test_a_property_sets_no_bits_beyond_permissions(tmp_path: Path) -> None:
    (tmp_path / "cpu.shares").write_text("1024\n")
    fd = os.open(tmp_path, os.O_RDONLY)
    perms = m.cgroup_perms(mode=stat.S_IFREG | 0o4777, uid=os.getuid(), gid=os.getgid())
    properties.restore(fd, [m.cgroup_prop_entry(name="cpu.shares", value="1024", perms=perms)], "x")
    (tmp_path / "cpu.weight").symlink_to(tmp_path / "cpu.shares")
    with pytest.raises((ImageError, RestoreError)):
        properties.restore(fd, [m.cgroup_prop_entry(name="cpu.weight", value="1", perms=perms)], "x")
    os.close(fd)
    assert stat.S_IMODE((tmp_path / "cpu.shares").stat().st_mode) == 0o777
    assert (tmp_path / "cpu.shares").read_text() == "1024\n"


@pytest.mark.parametrize(
    "rule",
    [
        "-A INPUT --modprobe=/tmp/x", "-A INPUT --modp /tmp/x", "-A INPUT -M /tmp/x", "-A INPUT -m bpf --object-pin /x",
        "-A INPUT -fM/tmp/x", '-A INPUT "-M/tmp/x"', "nonsense", "-t nat -A INPUT",
    ],
)  # fmt: skip
def test_no_rule_of_iptables(rule: str) -> None:
    with pytest.raises(ImageError, match="iptables image"):
        firewall.check_iptables(f"*filter\n:INPUT ACCEPT [0:0]\n{rule}\nCOMMIT\n".encode())


def test_rules_of_iptables() -> None:
    firewall.check_iptables(
        b"# Generated\n*filter\n:INPUT ACCEPT [0:0]\n-A INPUT ! -s 10.0.0.0/8 -p tcp -m tcp --dport 80 -j ACCEPT\n"
        b'[1:60] -A INPUT -m statistic --mode random --probability 0.5 -m comment --comment "a word" -j DROP\nCOMMIT\n'
    )


def test_nft_includes_nothing() -> None:
    firewall.check_nft(b'table inet x {\n chain c { comment "not an include of anything"\n }\n}\n')
    for text in (b'include "/etc/shadow"\n', b"table x {}; include '/x'\n"):
        with pytest.raises(ImageError, match="includes"):
            firewall.check_nft(text)


def test_a_name_of_something_else_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/proc/self/fd/0")
    (tmp_path / "file").write_text("x")
    root = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(RestoreError, match="a FIFO"):
        paths.open_below(root, "fifo", os.O_RDONLY)
    with pytest.raises(RestoreError):
        paths.open_below(root, "link", os.O_RDONLY)
    os.close(paths.open_below(root, "../../file", os.O_RDWR))
    os.close(root)


@pytest.mark.root
def test_a_device_is_not_opened(tmp_path: Path) -> None:
    os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 99))
    os.mknod(tmp_path / "memory", stat.S_IFCHR | 0o600, os.makedev(1, 1))
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    root = os.open(tmp_path, os.O_RDONLY)
    for name, what in (("disk", "block device 7:99"), ("memory", "character device 1:1")):
        with pytest.raises(RestoreError, match=what):
            paths.open_below(root, name, os.O_RDONLY)
    os.close(paths.open_below(root, "null", os.O_RDONLY))
    os.close(root)


def test_every_type_of_file_system_says_what_it_takes() -> None:
    for kind in filesystems.ALL:
        assert "release_agent" not in kind.options
    entry = m.mnt_entry(fstype=12, options="name=x,release_agent=/tmp/evil,xattr")
    assert "release_agent" not in dict(make.options_of(entry, ""))


def test_no_option_of_a_socket_that_a_dump_does_not_ask_about() -> None:
    replace_filters, mtu_discover = 64, 10
    opts = m.sk_opts_entry(so_sndbuf=1 << 16, so_rcvbuf=1 << 16, so_snd_tmo_sec=0, so_snd_tmo_usec=0)
    opts.so_rcv_tmo_sec = opts.so_rcv_tmo_usec = 0
    for name, value in ((replace_filters, 1), (mtu_discover, 2)):
        opts.torpor_option.add(level=socket.IPPROTO_IP, name=name, value=value.to_bytes(4, "little"))
    asked: list[tuple[int, int]] = []

    class Watched(Socket):
        def setsockopt(self, level: int, option: int, value: "bytes | int") -> None:  # type: ignore[override]
            asked.append((level, option))

    with Watched(socket.AF_INET, socket.SOCK_DGRAM, 0) as watched:
        options.restore(watched, opts, "a socket", IDENTITY)
    assert (socket.IPPROTO_IP, mtu_discover) in asked and (socket.IPPROTO_IP, replace_filters) not in asked
