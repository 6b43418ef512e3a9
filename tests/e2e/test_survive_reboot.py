"""Jobs and containers outlive a reboot, which is simulated: all that runs is killed, what lies in /run is gone.

Real ones are in tests/vm.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness.private_podman import IMAGE, PrivatePodman

#: A program with a connection open at both ends.
_CONNECTED = """
import socket, time
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
print("connected", flush=True)
time.sleep(100000)
"""

pytestmark = [pytest.mark.root, pytest.mark.real]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivatePodman]:
    with PrivatePodman(tmp_path_factory.mktemp("podman")) as found:
        found.make_image()
        found.torpor("setup")
        yield found


@pytest.fixture
def host(everything: PrivatePodman) -> Iterator[PrivatePodman]:
    """A host without containers and marks, on which torpor is set up."""
    yield everything
    everything.podman("pod", "rm", "--all", "--force", "--time=0")
    everything.podman("rm", "--all", "--force", "--time=0")
    everything.run("rm", "-rf", everything.directory / "state")


def crash(host: PrivatePodman) -> None:
    """What a reboot leaves: nothing runs, and what lay in /run is gone."""
    for name, state in host.containers().items():
        # Whoever watches it goes first: otherwise it has Podman forget a container that was run with --rm.
        ident, *pids = host.inspect(name, "{{.Id}} {{.State.ConmonPid}} {{.State.Pid}}").split()
        for pid in filter(None, map(int, pids if state == "running" else [])):
            os.kill(pid, signal.SIGKILL)
        # Its record lies in /run, which this host shares with others.
        host.run("runc", "delete", "--force", ident, check=False)
    for below in ("/storage/overlay", "/userdata/shm", "/run/netns/"):
        host.run("sh", "-c", f"grep -o ' /[^ ]*{below}[^ ]*' /proc/self/mounts | sort -r | xargs -r -n1 umount -l")
    links = json.loads(host.run("ip", "-j", "link", "show", "type", "bridge").stdout or "[]")
    for link in links:
        host.run("ip", "link", "delete", link["ifname"])
    host.run("rm", "-rf", host.directory / "run", host.directory / "tmp")


def kill_with_all_below(pid: int) -> None:
    """SIGKILL for a process and its descendants; nobody starts one meanwhile, or hears of the end of another."""
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "TtZX":
            os.sched_yield()
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            kill_with_all_below(int(child))
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def entries(host: PrivatePodman) -> dict[str, dict[str, object]]:
    told = json.loads(host.torpor("survive", "--json").stdout)
    return {entry["target"]: entry for entry in told["last"]["entries"]}


def test_containers_keep_name_id_address_and_count(host: PrivatePodman) -> None:
    idents = {name: host.start(name) for name in ("one", "two")}
    addresses = {name: host.inspect(name, "{{.NetworkSettings.IPAddress}}") for name in idents}
    assert [host.ask("one"), host.ask("one"), host.ask("two")] == [1, 2, 1]
    host.torpor("survive", "one")
    host.torpor("survive", "two", "--after", "one")
    said = host.torpor("survive", "--save").stdout
    assert said.index("podman:two: sleeps") < said.index("podman:one: sleeps")
    crash(host)
    said = host.torpor("survive", "--restore").stdout
    assert said.index("podman:one: runs again") < said.index("podman:two: runs again")
    assert {name: host.inspect(name, "{{.Id}}") for name in idents} == idents
    assert {name: host.inspect(name, "{{.NetworkSettings.IPAddress}}") for name in idents} == addresses
    assert [host.ask("one"), host.ask("two")] == [3, 2]
    assert host.torpor("survive", "--restore").stdout == ""
    assert {entry["state"] for entry in entries(host).values()} == {"restored"}


def test_a_container_of_a_pod_is_in_the_pods_namespaces_again(host: PrivatePodman) -> None:
    """The pod's first container is not marked, and started for it, under another pid."""
    host.podman("pod", "create", "--name", "shop")
    first = host.podman("pod", "inspect", "--format", "{{.InfraContainerID}}", "shop")
    ident = host.podman("run", "-d", "--name", "member", "--ulimit", "host", "--pod", "shop", IMAGE)
    assert [host.ask("member", of=first) for _ in range(2)] == [0, 1]
    host.torpor("survive", "member")
    host.torpor("survive", "--save")
    crash(host)
    assert "podman:member: runs again" in host.torpor("survive", "--restore").stdout
    assert host.inspect("member", "{{.Id}}") == ident
    pids = [host.inspect(name, "{{.State.Pid}}") for name in ("member", first)]
    for kind in ("net", "ipc", "uts"):
        assert len({os.readlink(f"/proc/{pid}/ns/{kind}") for pid in pids}) == 1, kind
    assert host.ask("member", of=first) == 2


def test_what_cannot_be_saved_is_told_and_stops_nobody(host: PrivatePodman) -> None:
    host.start("web", "--label", "io.torpor.survive-reboot=true")
    host.start("once", "--rm")
    host.torpor("run", "-d", "--name", "stuck", "--", sys.executable, "-c", _CONNECTED)
    host.torpor("survive", "once", "stuck")
    while "connected" not in host.torpor("logs", "stuck").stdout:
        assert json.loads(host.torpor("ps", "--json").stdout)[0]["status"] == "running"
    looked = host.torpor("survive", "--save", "--dry-run", check=False)
    assert looked.returncode == 1 and "job:stuck: NOT SAVED" in looked.stdout and "podman:web: will be" in looked.stdout
    assert host.containers() == {"web": "running", "once": "running"}
    saved = host.torpor("survive", "--save", check=False)
    assert saved.returncode == 1 and "podman:web: sleeps" in saved.stdout
    assert "podman:once: NOT SAVED: it was started with --rm" in saved.stderr
    assert "job:stuck: NOT SAVED" in saved.stderr and "--tcp-established" in saved.stderr
    host.torpor("kill", "stuck")
    crash(host)
    host.torpor("survive", "--restore", check=False)
    assert host.inspect("web", "{{.State.Status}}") == "running" and host.ask("web") == 1
    told = host.torpor("ps").stderr
    assert "2 of 3 did not make it through the reboot" in told and "job:stuck" in told and "podman:once" in told
    assert "job:stuck: NOT SAVED" in host.torpor("survive").stdout
    assert host.torpor("ps").stderr == ""
    host.torpor("kill", "--remove", "stuck", check=False)


def test_a_save_that_is_killed_is_gone_on_with_at_boot(host: PrivatePodman) -> None:
    """Killed while Podman is at work: what sleeps is restored, and of the rest it is said that it was not saved."""
    host.start("web")
    host.torpor("run", "-d", "--name", "job", "--", "sleep", "1000")
    host.torpor("survive", "web", "job")
    line = [*host.enter, sys.executable, "-m", "torpor.cli.torpor", "survive", "--save"]
    process = subprocess.Popen(line, env=host.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    assert process.stdout.readline()
    kill_with_all_below(process.pid)
    process.communicate()
    states = {target: entry["state"] for target, entry in entries(host).items()}
    (job,) = json.loads(host.torpor("ps", "--json").stdout)
    assert states["podman:web"] == "saved"
    # Whoever waits long enough for a processor finds it asleep as well.
    is_late = states["job:job"] == "saved" and job["status"] == "checkpointed"
    assert states["job:job"] in ("waiting", "saving") or is_late
    if job["status"] == "running":
        host.torpor("kill", "job")
    crash(host)
    host.torpor("survive", "--restore", check=False)
    after = {target: entry["state"] for target, entry in entries(host).items()}
    assert after == {"podman:web": "restored", "job:job": "left" if job["status"] == "running" else "restored"}
    assert host.ask("web") == 1
    host.torpor("kill", "--remove", "job", check=False)
