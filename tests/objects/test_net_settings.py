"""Sysctls of a network namespace: whatever can be set there is so again after a restore, or is said not to be."""

import json
import sys

import pytest

from harness.network import ask, unshared
from harness.workload import Workload

pytestmark = pytest.mark.root

_SETUP = "ip link set lo up; ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up"

#: Prints all there are, as JSON; with the argument "set" it gives each that can be set another value before.
_SCRIPT = """
import json, os, sys

def paths():
    for directory, _, names in os.walk("/proc/sys/net"):
        yield from (os.path.join(directory, name) for name in names)

def read(path):
    try:
        with open(path) as stream:
            return stream.read().strip()
    except OSError:
        return None

def others(path, value):
    words = value.split()
    if len(words) == 1 and words[0].lstrip("-").isdigit():
        number = int(words[0])
        return [number + 1, number - 1, 1 - number, number // 2]
    if words and all(word.isdigit() for word in words):
        return [" ".join([*(str(int(word) + 1) for word in words[:-1]), words[-1]])]
    return {"stable_secret": ["fe80::1234:5"], "ip_local_reserved_ports": ["7000-7010"],
            "tcp_fastopen_key": ["11111111-22222222-33333333-44444444"]}.get(os.path.basename(path), ["reno", "1"])

def change(path):
    before = read(path)
    for value in others(path, before or ""):
        try:
            with open(path, "w") as stream:
                stream.write(str(value))
        except OSError:
            continue
        if read(path) != before:
            return

if sys.argv[1:] == ["set"]:
    for path in sorted(paths(), key=lambda path: ("forwarding" not in path, path)):
        if os.stat(path).st_mode & 0o200:
            change(path)
print(json.dumps({path: read(path) for path in paths()}))
"""


def _settings(pid: int, *words: str) -> dict[str, str | None]:
    found: dict[str, str | None] = json.loads(ask(pid, sys.executable, "-c", _SCRIPT, *words))
    return found


def test_what_is_set_in_a_network_namespace_is_set_again_or_told() -> None:
    with Workload.start("counter", prefix=unshared(_SETUP)) as workload:
        workload.wait_ready()
        usual = _settings(workload.pid)
        before = _settings(workload.pid, "set")
        assert sum(usual[path] != value for path, value in before.items()) > 100
        workload.dump()
        workload.restore()
        after = _settings(workload.pid)
        told = (workload.images / "restore.log").read_text()
        lost = {
            path: (value, after.get(path)) for path, value in before.items() if not _is_same(value, after.get(path))
        }
        assert [f"{path}: {was}" for path, was in lost.items() if path.removeprefix("/proc/sys/") not in told] == []
        workload.expect_pass()


def _is_same(one: str | None, other: str | None) -> bool:
    return one == other or {one, other} == {"0", "-0"}
