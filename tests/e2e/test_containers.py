"""Containers run with all sorts of `podman run`'s options: down and up twice, and what an option asks for holds."""

from collections.abc import Sequence

import pytest

from harness import images
from harness.applications import ShellLoop
from harness.podman import Podman

_LOOP = ShellLoop()


def _line(name: str) -> Sequence[str]:
    """What the first process's status says under this name."""
    return ("grep", name, "/proc/1/status")


#: Not --ipc=host: Podman 4.3 then puts back all of the host's /dev/shm at a restore, its own locks (held) included.
#: Options, and a command in the container whose output must be the same before and after (and not empty).
CONTAINERS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "plain": ((), ("cat", "/proc/1/cgroup")),
    "user": (("--user=1000:1000",), _line("[UG]id")),
    "user-groups": (("--user=1000:1000", "--group-add=27", "--group-add=33"), _line("Groups")),
    "init": (("--init",), ("cat", "/proc/1/cmdline")),
    "uidmap": (("--uidmap=0:100000:65536",), ("cat", "/proc/self/uid_map")),
    "userns-auto": (("--userns=auto",), ("cat", "/proc/self/uid_map")),
    "terminal": (("-t",), ("readlink", "/proc/1/fd/0")),
    "network-host": (("--network=host",), ("cat", "/proc/net/route")),
    "network-none": (("--network=none",), ("cat", "/sys/class/net/lo/address")),
    "pid-host": (("--pid=host",), ("cat", "/proc/1/comm")),
    "uts-host": (("--uts=host",), ("hostname",)),
    "read-only": (("--read-only",), ("sh", "-c", "touch /file 2>&1 || echo read-only")),
    "tmpfs": (
        ("--tmpfs=/data:size=1m",),
        ("sh", "-c", "echo kept >> /data/file; head -1 /data/file; df /data | tail -1"),
    ),
    "volume": (("--volume=/media:/data",), ("sh", "-c", "findmnt -n -o SOURCE /data || cat /data/mark")),
    "named-volume": (
        ("--volume=kept:/data",),
        ("sh", "-c", "[ -e /data/file ] || echo kept > /data/file; cat /data/file"),
    ),
    "cap-drop": (("--cap-drop=all", "--cap-add=kill"), _line("Cap")),
    "no-new-privileges": (("--security-opt=no-new-privileges",), _line("NoNewPrivs")),
    "seccomp": ((), _line("Seccomp:")),
    "seccomp-unconfined": (("--security-opt=seccomp=unconfined",), _line("Seccomp:")),
    "privileged": (("--privileged",), _line("Cap")),
    "limits": (
        ("--memory=256m", "--pids-limit=50"),
        ("sh", "-c", "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max"),
    ),
    "rlimits": (
        ("--ulimit=core=1000:2000", "--ulimit=nofile=100:200", "--ulimit=nproc=500:600"),
        ("cat", "/proc/1/limits"),
    ),
    "oom-score": (("--oom-score-adj=500",), ("cat", "/proc/1/oom_score_adj")),
    "sysctl": (("--sysctl=kernel.msgmax=4321",), ("cat", "/proc/sys/kernel/msgmax")),
    "network-sysctls": (
        (
            "--sysctl=net.ipv4.ip_forward=0",
            "--sysctl=net.core.somaxconn=77",
            "--sysctl=net.ipv4.ip_unprivileged_port_start=80",
            "--sysctl=net.ipv4.conf.lo.log_martians=1",
        ),
        (
            "sh",
            "-c",
            "cd /proc/sys/net; cat ipv4/ip_forward core/somaxconn ipv4/ip_unprivileged_port_start"
            " ipv4/conf/lo/log_martians ipv4/ping_group_range ipv4/conf/*/forwarding ipv4/conf/*/accept_redirects",
        ),
    ),
    "hostname": (("--hostname=sleeper",), ("hostname",)),
    "shm-size": (("--shm-size=1m",), ("df", "/dev/shm")),
    "device": (("--device=/dev/null:/dev/nothing",), ("stat", "-c", "%t:%T", "/dev/nothing")),
    "no-hosts": (("--no-hosts", "--dns=192.0.2.53"), ("cat", "/etc/resolv.conf")),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_container(podman: Podman, name: str) -> None:
    """State, and what the option asked for, are there after each restore."""
    options, question = CONTAINERS[name]
    prepare(podman)
    run(podman, "a", *options)
    assert _LOOP.step(podman, "a") == 0
    before = ask(podman, "a", *question)
    assert before
    for expected in (1, 2):
        podman("container", "checkpoint", "a")
        podman("container", "restore", "a")
        assert _LOOP.step(podman, "a") == expected
        assert ask(podman, "a", *question) == before
    podman("stop", "--time=0", "a")


@pytest.mark.parametrize("name", ["user", "init", "uidmap", "terminal", "network-none", "read-only", "limits"])
def test_copy(podman: Podman, name: str) -> None:
    """The same by way of a file, as another container."""
    options, question = CONTAINERS[name]
    prepare(podman)
    run(podman, "a", *options)
    assert _LOOP.step(podman, "a") == 0
    before = ask(podman, "a", *question)
    podman("container", "checkpoint", "--export=/tmp/checkpoint.tar", "--compress=none", "a")
    podman("rm", "a")
    for copy in ("b", "c"):
        podman("container", "restore", "--import=/tmp/checkpoint.tar", "-n", copy)
    for copy in ("b", "c"):
        assert _LOOP.step(podman, copy) == 1
        assert ask(podman, copy, *question) == before


def prepare(podman: Podman) -> None:
    """What some options need on the host."""
    for table in ("subuid", "subgid"):
        podman.machine.path(f"/etc/{table}").write_text("containers:200000:1000000\n")
    podman.machine.path("/tmp/mark").write_text("mark\n")


def run(podman: Podman, name: str, *options: str) -> str:
    return podman.run("--name", name, *options, images.APPLICATIONS, *_LOOP.command)


def ask(podman: Podman, container: str, *question: str) -> str:
    """The output of a command in the container, whether it succeeds or not."""
    return podman.machine.run("podman", "exec", container, *question, check=False).stdout.strip()
