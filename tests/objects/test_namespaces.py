"""Namespaces other than those of a job: an empty network namespace, and what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import engine
from harness.skips import need_mounted_root
from harness.workload import Workload

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]


@pytest.mark.parametrize("is_up", [False, True])
def test_a_network_namespace_with_only_loopback_is_carried(is_up: bool) -> None:
    prefix = ["unshare", "--net", "sh", "-c", f'ip link set lo {"up" if is_up else "down"} && exec "$@"', "sh"]
    with Workload.start("counter", prefix=prefix) as workload:
        workload.wait_ready()
        workload.dump()
        workload.restore()
        assert os.readlink(f"/proc/{workload.pid}/ns/net") != os.readlink("/proc/self/ns/net")
        with open(f"/proc/{workload.pid}/net/fib_trie", encoding="ascii") as stream:
            assert ("127.0.0.1" in stream.read()) == is_up
        workload.expect_pass()


@pytest.mark.parametrize("name", ["tcp_listen", "udp", "unix_names", "unix_pairs"])
def test_sockets_of_a_network_namespace_are_carried(name: str) -> None:
    prefix = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    with Workload.start(name, prefix=prefix) as workload:
        workload.wait_ready()
        workload.dump()
        workload.restore()
        workload.expect_pass()


def test_the_clocks_of_a_time_namespace_go_on() -> None:
    prefix = ["unshare", "--time", "--monotonic", "5000", "--boottime", "7000"]
    with Workload.start("counter", prefix=prefix) as workload:
        workload.wait_ready()
        workload.dump()
        workload.restore()
        with open(f"/proc/{workload.pid}/timens_offsets", encoding="ascii") as stream:
            offsets = {line.split()[0]: int(line.split()[1]) for line in stream}
        # The clocks stood still while it was asleep.
        assert 4900 < offsets["monotonic"] <= 5000
        assert 6900 < offsets["boottime"] <= 7000
        workload.expect_pass()


@pytest.mark.alone  # so its pids are the next ones of the machine, and who is born beside it in that moment gets them
@pytest.mark.parametrize("name", ["counter", "threads", "plain_files"])
def test_a_user_namespace_without_a_pid_namespace(name: str) -> None:
    """It may not choose its pids, and nobody in it may set groups."""
    need_mounted_root()
    with Workload.start(name, prefix=["unshare", "--map-root-user"]) as workload:
        workload.wait_ready()
        workload.dump()
        workload.restore()
        assert Path(f"/proc/{workload.pid}/uid_map").read_text(encoding="ascii").split() == ["0", "0", "1"]
        assert Path(f"/proc/{workload.pid}/setgroups").read_text(encoding="ascii").strip() == "deny"
        workload.expect_pass()


@pytest.mark.alone
def test_ids_of_projects_are_mapped() -> None:
    need_mounted_root()
    with Workload.start("counter", prefix=["unshare", "--map-root-user"]) as workload:
        workload.wait_ready()
        Path(f"/proc/{workload.pid}/projid_map").write_text("3 5 10\n", encoding="ascii")
        workload.dump()
        workload.restore()
        assert Path(f"/proc/{workload.pid}/projid_map").read_text(encoding="ascii").split() == ["3", "5", "10"]
        workload.expect_pass()


@pytest.mark.parametrize(
    ("prefix", "why"),
    [
        (("unshare", "--user"), "namespace does not know"),
    ],
    ids=["user"],
)
def test_what_is_not_carried_is_refused_by_name(prefix: tuple[str, ...], why: str) -> None:
    if "--user" in prefix:
        need_mounted_root()
    with Workload.start("counter", prefix=prefix) as workload:
        workload.wait_ready()
        with pytest.raises(engine.EngineError, match=why):
            engine.dump(workload.pid, workload.images)
        workload.expect_pass()


_UNSHARES = """
import ctypes, os, signal, sys
assert ctypes.CDLL(None, use_errno=True).unshare(int(sys.argv[1], 16)) == 0
os.close(int(sys.argv[2]))
signal.pause()
"""


@pytest.mark.parametrize(("flag", "kind"), [("80", "time"), ("20000000", "pid")])
def test_a_namespace_for_children_only_is_refused(flag: str, kind: str, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with open("/dev/null", "r+b") as null:
        process = subprocess.Popen(
            [sys.executable, "-c", _UNSHARES, flag, str(writer)],
            stdin=null, stdout=null, stderr=null, pass_fds=(writer,), start_new_session=True,
        )  # fmt: skip
    os.close(writer)
    try:
        assert os.read(reader, 1) == b""
        with pytest.raises(engine.EngineError, match=f"another {kind} namespace for its children"):
            engine.dump(process.pid, tmp_path)
        assert process.poll() is None
    finally:
        os.close(reader)
        process.kill()
        process.wait()
