"""Jobs and containers outlive a reboot, which is simulated: all that runs is killed, what lies in /run is gone.

Real ones are in tests/vm.
"""

import json
import os
import signal
from collections.abc import Iterator

import pytest

from harness.private_podman import PrivatePodman

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
        if state == "running":
            for what in ("Pid", "ConmonPid"):
                os.kill(int(host.inspect(name, f"{{{{.State.{what}}}}}")), signal.SIGKILL)
    host.run("sh", "-c", "grep -o '/[^ ]*/storage/overlay[^ ]*' /proc/self/mounts | sort -r | xargs -r -n1 umount -l")
    host.run(
        "sh",
        "-c",
        "grep -o '/[^ ]*/userdata/shm' /proc/self/mounts | xargs -r -n1 umount -l; umount -l /run/netns/*; true",
    )
    host.run("sh", "-c", "ip link delete podman0 2>/dev/null; true")
    host.run("rm", "-rf", host.directory / "run", host.directory / "tmp")


def entries(host: PrivatePodman) -> dict[str, dict[str, object]]:
    told = json.loads(host.torpor("survive", "--json").stdout)
    return {entry["target"]: entry for entry in told["last"]["entries"]}


def test_containers_keep_name_id_address_and_count(host: PrivatePodman) -> None:
    idents = {name: host.start(name) for name in ("one", "two")}
    addresses = {name: host.inspect(name, "{{.NetworkSettings.IPAddress}}") for name in idents}
    assert [host.ask("one"), host.ask("one"), host.ask("two")] == [1, 2, 1]
    host.torpor("survive", "one", "two", "--after", "podman:other", check=False)
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
