"""Network namespaces of a test's own, and what they look like."""

import difflib
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.skips import missing
from torpor.kernel.namespaces import CLONE_NEWNET, setns, unshare
from torpor.kernel.netdevice import loopback_up

#: What `ip` tells that is no property of the object, or changes by itself.
_VOLATILE = frozenset(
    ("stats64", "link_netnsid", "hello_timer", "tcn_timer", "topology_change_timer", "gc_timer", "forward_delay_timer",
     "pref", "valid_life_time", "preferred_life_time")
)  # fmt: skip


@contextmanager
def of_our_own() -> Iterator[None]:
    """This thread, and what it starts, is in a new network namespace that has nothing but `lo`."""
    if os.geteuid() != 0:
        missing("root")
    before = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWNET)
        try:
            loopback_up()
            yield
        finally:
            setns(before, CLONE_NEWNET)
    finally:
        os.close(before)


def listens_at(tables: Path, port: int) -> bool:
    """Whether somebody listens at that port of TCP, in the network of *tables*, a /proc/PID/net."""
    for name in ("tcp", "tcp6"):
        rows = [line.split() for line in (tables / name).read_text().splitlines()[1:]]
        if any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows):
            return True
    return False


@contextmanager
def namespace(setup: str = "true") -> Iterator[int]:
    """The pid of a process that holds a new network namespace in which *setup* has been run by a shell."""
    script = f"set -e; {setup}; echo ready; exec cat"
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None and holder.stdout is not None
    try:
        assert holder.stdout.readline() == "ready\n", f"not set up: {setup}"
        yield holder.pid
    finally:
        holder.stdin.close()
        holder.stdout.close()
        holder.wait()


@contextmanager
def silence() -> Iterator[None]:
    """No packet leaves a socket in our network namespace."""
    rules = "table inet silence {\nchain out {\ntype filter hook output priority 0; policy drop;\n}\n}\n"
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run(["nft", "delete", "table", "inet", "silence"], check=True)


def enter(pid: int) -> list[str]:
    """The words before a command that is to run in the network namespace of *pid*."""
    return ["nsenter", f"--net=/proc/{pid}/ns/net"]


def unshared(setup: str) -> list[str]:
    """The words before a command that is to run in a new network namespace in which *setup* has been run."""
    return ["unshare", "--net", "sh", "-c", f'set -e; {setup}; exec "$@"', "sh"]


def ask(pid: int, *command: str) -> str:
    """What a command prints in the network namespace of *pid*."""
    done = subprocess.run([*enter(pid), *command], stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout


def picture(pid: int) -> dict[str, str]:
    """All that there is in the network namespace of *pid*, as lines, by the command that shows it."""
    commands = (
        "ip -j -d link", "ip -j addr", "ip -j route show table all", "ip -j -6 route show table all", "ip -j rule",
        "ip -j -6 rule", "ip -j neigh show nud permanent", "ip -j neigh show proxy", "bridge -j fdb show state static",
        "ip -j addrlabel",
    )  # fmt: skip
    shown = {command: json.loads(ask(pid, *command.split()) or "[]") for command in commands}
    return {command: json.dumps(_steady(each), indent=1, sort_keys=True) for command, each in shown.items()}


def differences(before: dict[str, str], after: dict[str, str]) -> str:
    """What has changed between two pictures, for people."""
    lines: list[str] = []
    for command, shown in before.items():
        lines += difflib.unified_diff(shown.split("\n"), after[command].split("\n"), command, "", "", "", 12, "")
    return "\n".join(lines)


def _steady(value: object) -> object:
    if isinstance(value, dict):
        return {key: _steady(each) for key, each in value.items() if key not in _VOLATILE}
    if isinstance(value, list):
        kept = [_steady(each) for each in value if each != "linkdown"]
        return sorted(kept, key=lambda each: json.dumps(each, sort_keys=True))
    return value


def sysctl(pid: int, *paths: str) -> list[str]:
    """Their values in the network namespace of *pid*."""
    return ask(pid, "sysctl", "-n", *(path.replace("/", ".") for path in paths)).split("\n")[:-1]


def run(pid: int, words: Sequence[str], data: str) -> None:
    """Give *data* to a command in the network namespace of *pid*."""
    with tempfile.TemporaryFile("w+") as stream:
        stream.write(data)
        stream.seek(0)
        subprocess.run([*enter(pid), *words], stdin=stream, check=True)
