"""A network namespace that a test has joined with its own, like another host."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def joined_namespace() -> Iterator[int]:
    """The pid of one who keeps a namespace that a veth pair joins with ours: 10.213.7.2 and fd13:7::2 are in it."""
    near = f"tn{os.getpid()}"
    with subprocess.Popen(["unshare", "-n", "sh", "-c", "echo; read _"], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        commands = [
            f"ip link add {near} type veth peer name eth0 netns {process.pid}",
            f"ip addr add 10.213.7.1/24 dev {near}",
            f"ip addr add fd13:7::1/64 dev {near} nodad",
            f"ip link set {near} up",
            f"nsenter -n -t {process.pid} ip addr add 10.213.7.2/24 dev eth0",
            f"nsenter -n -t {process.pid} ip addr add fd13:7::2/64 dev eth0 nodad",
            f"nsenter -n -t {process.pid} ip link set eth0 up",
            f"nsenter -n -t {process.pid} ip link set lo up",
        ]
        try:
            for command in commands:
                subprocess.run(command.split(), check=True)
            yield process.pid
        finally:
            subprocess.run(["ip", "link", "del", near], check=False)
            process.communicate(b"")
