"""The options of `podman container checkpoint` and `restore` do what their manual pages say."""

import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from harness import images
from harness.applications import ShellLoop
from harness.machine import MachineError, need_commands
from harness.podman import Podman

_LOOP = ShellLoop()
_FILE = "/tmp/checkpoint.tar.zst"


@pytest.fixture
def loop(podman: Podman) -> str:
    """A container `a` that has done one step."""
    run(podman, "a")
    assert _LOOP.step(podman, "a") == 0
    return "a"


def test_leave_running(podman: Podman, loop: str) -> None:
    """It runs on, and can be restored to the moment of its checkpoint all the same."""
    pid = podman.pid(loop)
    podman("container", "checkpoint", "--leave-running", loop)
    assert podman.is_running(loop)
    assert podman.pid(loop) == pid
    assert _LOOP.step(podman, loop) == 1
    podman("stop", "--time=0", loop)
    podman("container", "restore", loop)
    assert _LOOP.step(podman, loop) == 1


def test_state(podman: Podman, loop: str) -> None:
    """Podman says of a container that it has been checkpointed, and restored."""
    podman("container", "checkpoint", loop)
    assert podman.inspect(loop, "{{.State.Checkpointed}} {{.State.Restored}}") == "true false"
    podman("container", "restore", loop)
    assert podman.inspect(loop, "{{.State.Checkpointed}} {{.State.Restored}}") == "false true"
    podman("stop", "--time=0", loop)
    podman("start", loop)
    assert _LOOP.step(podman, loop) == 0


def test_keep(podman: Podman, loop: str) -> None:
    """Logs and statistics stay if --keep says so, and not otherwise."""
    static = podman.machine.path(podman.inspect(loop, "{{.StaticDir}}"))
    podman("container", "checkpoint", "--keep", loop)
    assert (static / "dump.log").exists()
    assert (static / "checkpoint" / "inventory.img").exists()
    podman("container", "restore", "--keep", loop)
    assert (static / "restore.log").exists()
    assert (static / "checkpoint" / "inventory.img").exists()
    podman("container", "checkpoint", loop)
    podman("container", "restore", loop)
    assert not (static / "restore.log").exists()
    assert not (static / "checkpoint").exists()


def test_print_stats(podman: Podman, loop: str) -> None:
    """Times and numbers of pages of both."""
    dumped = json.loads(podman("container", "checkpoint", "--print-stats", loop))["container_statistics"][0]
    statistics = dumped["criu_statistics"]
    assert dumped["runtime_checkpoint_duration"] > 0
    assert statistics["frozen_time"] > 0
    assert statistics["pages_written"] > 0
    assert statistics["pages_scanned"] >= statistics["pages_written"]
    restored = json.loads(podman("container", "restore", "--print-stats", loop))["container_statistics"][0]
    assert restored["runtime_restore_duration"] > 0
    assert restored["criu_statistics"]["restore_time"] > 0
    # Pages that a child shares with its parent are restored once.
    assert 0 < restored["criu_statistics"]["pages_restored"] <= statistics["pages_written"]


@pytest.mark.parametrize(("method", "magic"), [("zstd", "28b52ffd"), ("gzip", "1f8b"), ("none", "")])
def test_compress(podman: Podman, loop: str, method: str, magic: str) -> None:
    podman("container", "checkpoint", f"--compress={method}", "--export=/tmp/file", loop)
    assert podman.machine.path("/tmp/file").read_bytes()[:8].hex().startswith(magic)
    podman("rm", loop)
    podman("container", "restore", "--import=/tmp/file")
    assert _LOOP.step(podman, loop) == 1


def test_file_locks(podman: Podman) -> None:
    """A lock is held after the restore; without the option the checkpoint fails, says so, and the container runs on."""
    held = f"exec 9> /tmp/lock; flock 9; {_LOOP.command[-1]}"
    podman.run("--name", "a", images.APPLICATIONS, "sh", "-c", held)
    assert _LOOP.step(podman, "a") == 0
    assert "lock" in podman.fails("container", "checkpoint", "a") + "".join(podman.engine_logs())
    assert _LOOP.step(podman, "a") == 1
    podman("container", "checkpoint", "--file-locks", "a")
    podman("container", "restore", "--file-locks", "a")
    assert _LOOP.step(podman, "a") == 2
    with pytest.raises(MachineError):
        podman.exec("a", "flock", "-n", "/tmp/lock", "true")


def test_rootfs(podman: Podman, loop: str) -> None:
    """A changed root file system goes with the file, and with --ignore-rootfs it does not."""
    podman.exec(loop, "sh", "-c", "echo changed > /changed; rm /etc/issue")
    podman("container", "checkpoint", "--leave-running", f"--export={_FILE}", loop)
    podman("container", "checkpoint", "--ignore-rootfs", "--export=/tmp/less.tar", "--compress=none", loop)
    with tarfile.open(podman.machine.path("/tmp/less.tar")) as archive:
        assert not any("rootfs" in name for name in archive.getnames())
    podman("rm", loop)
    podman("container", "restore", f"--import={_FILE}", "-n", "whole")
    assert podman.exec("whole", "cat", "/changed") == "changed"
    with pytest.raises(MachineError):
        podman.exec("whole", "cat", "/etc/issue")
    podman("container", "restore", "--ignore-rootfs", f"--import={_FILE}", "-n", "less")
    assert _LOOP.step(podman, "less") == 1
    with pytest.raises(MachineError):
        podman.exec("less", "cat", "/changed")


def test_static_address(podman: Podman) -> None:
    """A copy of a container with an address of its own choice gets another one beside it."""
    run(podman, "a", "--ip=10.88.0.77", "--mac-address=aa:bb:cc:dd:ee:01")
    podman("container", "checkpoint", "--leave-running", f"--export={_FILE}", "a")
    ignore = ("--ignore-static-ip", "--ignore-static-mac")
    podman("container", "restore", f"--import={_FILE}", *ignore, "-n", "b")
    hardware = "{{.NetworkSettings.IPAddress}} {{.NetworkSettings.MacAddress}}"
    assert podman.inspect("a", hardware) == "10.88.0.77 aa:bb:cc:dd:ee:01"
    other = podman.inspect("b", hardware).split()
    assert other[0] != "10.88.0.77"
    assert other[1] != "aa:bb:cc:dd:ee:01"
    podman("rm", "--force", "--time=0", "a", "b")
    podman("container", "restore", f"--import={_FILE}")
    assert podman.inspect("a", hardware) == "10.88.0.77 aa:bb:cc:dd:ee:01"


def test_image(podman: Podman, loop: str) -> None:
    """--create-image makes an image that a container can be restored from."""
    podman("container", "checkpoint", "--create-image=localhost/asleep", loop)
    podman("rm", loop)
    notes = podman("image", "inspect", "--format", "{{json .Annotations}}", "localhost/asleep")
    assert json.loads(notes)["io.podman.annotations.checkpoint.name"] == "a"
    podman("container", "restore", "localhost/asleep")
    assert _LOOP.step(podman, "a") == 1


def test_pod(podman: Podman) -> None:
    """A container of a pod is restored into another pod, whose namespaces it shares."""
    first, second = (podman("pod", "create", "--name", pod) for pod in ("first", "second"))
    run(podman, "a", f"--pod={first}")
    assert _LOOP.step(podman, "a") == 0
    podman("container", "checkpoint", f"--export={_FILE}", "a")
    podman("rm", "a")
    podman("container", "restore", f"--import={_FILE}", f"--pod={second}", "-n", "b")
    assert _LOOP.step(podman, "b") == 1
    infra = podman("pod", "inspect", "--format", "{{.InfraContainerID}}", second)
    namespaces = [podman.machine.out("readlink", f"/proc/{podman.pid(each)}/ns/net") for each in ("b", infra)]
    assert namespaces[0] == namespaces[1]


def test_volumes(podman: Podman, image_stores: list[Path]) -> None:
    """A named volume's contents go along to another host, and with --ignore-volumes they do not."""
    run(podman, "a", "--volume=data:/data")
    podman.exec("a", "sh", "-c", "echo kept > /data/file")
    podman("container", "checkpoint", f"--export={_FILE}", "a")
    for option, expected in (("", "kept"), ("--ignore-volumes", "")):
        with Podman(image_stores, "host2") as other:
            source, target = podman.machine.path(_FILE), other.machine.path(_FILE)
            target.write_bytes(source.read_bytes())
            other("container", "restore", f"--import={_FILE}", *option.split())
            assert other.exec("a", "sh", "-c", "cat /data/file || true") == expected
            assert _LOOP.step(other, "a") == 0


def test_all(podman: Podman) -> None:
    """--all takes every container that runs, and brings every checkpointed one back."""
    names = ("a", "b", "c")
    for number, name in enumerate(names):
        run(podman, name)
        for step in range(number + 1):
            assert _LOOP.step(podman, name) == step
    podman("container", "checkpoint", "--all")
    assert podman("ps", "--quiet") == ""
    podman("container", "restore", "--all")
    assert [_LOOP.step(podman, name) for name in names] == [1, 2, 3]


def test_publish(podman: Podman) -> None:
    """A restored copy may be given other ports on the host."""
    podman.run("--name", "a", "--publish=8001:8080", images.APPLICATIONS, "/srv/apps/counter")
    podman.wait_listening("a")
    assert podman.get("127.0.0.1", port=8001) == "0"
    podman("container", "checkpoint", f"--export={_FILE}", "a")
    podman("rm", "a")
    podman("container", "restore", f"--import={_FILE}", "--publish=8002:8080", "-n", "b")
    assert podman.get("127.0.0.1", port=8002) == "1"


def test_pre_checkpoint(podman: Podman, loop: str) -> None:
    """Its memory is copied while it runs; the checkpoint that follows leans on that, and is brought back."""
    podman("container", "checkpoint", "--pre-checkpoint", loop)
    assert podman.is_running(loop)
    assert _LOOP.step(podman, loop) == 1
    dumped = json.loads(podman("container", "checkpoint", "--with-previous", "--print-stats", loop))
    statistics = dumped["container_statistics"][0]["criu_statistics"]
    assert statistics["pages_written"] < statistics["pages_scanned"]
    podman("container", "restore", loop)
    assert _LOOP.step(podman, loop) == 2


def test_pre_checkpoint_elsewhere(podman: Podman, loop: str) -> None:
    """The same by archives: both are needed for the restore."""
    before = "/tmp/before.tar.zst"
    podman("container", "checkpoint", "--pre-checkpoint", f"--export={before}", loop)
    assert _LOOP.step(podman, loop) == 1
    podman("container", "checkpoint", "--with-previous", f"--export={_FILE}", loop)
    podman("rm", loop)
    podman("container", "restore", f"--import-previous={before}", f"--import={_FILE}")
    assert _LOOP.step(podman, loop) == 2


def test_with_previous_is_refused(podman: Podman, loop: str) -> None:
    said = podman.fails("container", "checkpoint", "--with-previous", f"--export={_FILE}", loop)
    assert "pre-checkpoint: no such file" in said, said
    assert podman.is_running(loop)
    assert _LOOP.step(podman, loop) == 1


def _shells(podman: Podman, name: str) -> int:
    """How many there are in the container; a child that is about to become `sleep` has its parent's arguments."""
    return len({line for line in podman("top", name, "args").splitlines() if line.startswith("sh ")})


def test_exec(podman: Podman, loop: str) -> None:
    """What `podman exec` has started is not lost without a word, and taken along where a configuration file says so."""
    podman("exec", "--detach", loop, "sh", "-c", "while true; do read line < /dev/null; done")
    podman.fails("container", "checkpoint", loop)
    assert any("(sh) is in the pid namespace of pid" in note for note in podman.engine_logs()), podman.engine_logs()
    assert podman.is_running(loop)
    podman.wait_for(lambda: _shells(podman, loop) == 2, "both")
    config = podman.machine.path("/etc/criu")
    config.mkdir(exist_ok=True)
    (config / "runc.conf").write_text("exec-processes carry\n")
    # Nobody would be at the other end of its terminal, so it is not taken along.
    podman("exec", "--detach", "--tty", loop, "sh", "-c", "until [ -e /tmp/end ]; do read line < /dev/null; done")
    podman.fails("container", "checkpoint", loop)
    assert any("(podman exec -t)" in note for note in podman.engine_logs()), podman.engine_logs()
    assert podman.is_running(loop)
    podman.wait_for(lambda: _shells(podman, loop) == 3, "all three")
    podman("exec", loop, "touch", "/tmp/end")
    podman.wait_for(lambda: _shells(podman, loop) == 2, "the end of the one with a terminal")
    podman("container", "checkpoint", loop)
    podman("container", "restore", loop)
    assert _shells(podman, loop) == 2
    assert _LOOP.step(podman, loop) == 1


@pytest.mark.parametrize("more", ["", ",upperdir=/srv/upper,workdir=/srv/work"])
def test_volume_of_one_run(podman: Podman, more: str) -> None:
    """Podman mounts it once, of layers that the container cannot see: refused while it can still run on."""
    for name in ("lower", "upper", "work"):
        podman.machine.path(f"/srv/{name}").mkdir(parents=True, exist_ok=True)
    run(podman, "a", f"--volume=/srv/lower:/data:O{more}")
    assert _LOOP.step(podman, "a") == 0
    with pytest.raises(MachineError) as caught:
        podman("container", "checkpoint", "a")
    assert any("/data " in note and "is an overlay, whose lowerdir" in note for note in caught.value.__notes__)
    assert podman.is_running("a")
    assert _LOOP.step(podman, "a") == 1


def run(podman: Podman, name: str, *options: str) -> str:
    return podman.run("--name", name, *options, images.APPLICATIONS, *_LOOP.command)


_SYSCTLS = {
    "kernel.msgmax": "4321", "kernel.msgmnb": "54321", "kernel.msgmni": "77", "kernel.sem": "251 32001 33 129",
    "kernel.shmall": "1000000", "kernel.shmmax": "70000000", "kernel.shmmni": "99", "kernel.shm_rmid_forced": "1",
    "fs.mqueue.msg_max": "42", "fs.mqueue.msg_default": "7", "fs.mqueue.msgsize_max": "9000",
    "fs.mqueue.msgsize_default": "4000", "fs.mqueue.queues_max": "99", "net.core.somaxconn": "77",
}  # fmt: skip


def test_sysctls(podman: Podman) -> None:
    """What was set when the container began is so in it, and in a copy of it."""
    run(podman, "a", "--hostname=shop", *(f"--sysctl={name}={value}" for name, value in _SYSCTLS.items()))
    assert _LOOP.step(podman, "a") == 0
    podman("container", "checkpoint", f"--export={_FILE}", "a")
    podman("container", "restore", "a")
    wanted = {**_SYSCTLS, "kernel.hostname": "shop"}
    assert _sysctls(podman, "a", wanted) == wanted
    podman("rm", "--force", "--time=0", "a")
    podman("container", "restore", f"--import={_FILE}", "-n", "b")
    assert _sysctls(podman, "b", wanted) == wanted


def _sysctls(podman: Podman, name: str, wanted: Iterable[str]) -> dict[str, str]:
    paths = " ".join(each.replace(".", "/") for each in wanted)
    lines = podman.exec(name, "sh", "-c", f"cd /proc/sys; cat {paths}").splitlines()
    return dict(zip(wanted, (" ".join(line.split()) for line in lines), strict=True))


def test_packet_filters(podman: Podman, loop: str) -> None:
    """What has been set in a container's network since is set in the one that Podman makes for it anew."""

    def nft(*words: str) -> str:
        return podman.machine.out("nsenter", "--net", f"--target={podman.pid(loop)}", "nft", *words)

    need_commands({"nft": "nftables"})
    nft("table ip wall { chain out { type filter hook output priority 0; ip daddr 10.9.9.9 drop; }; }")
    podman("container", "checkpoint", f"--export={_FILE}", loop)
    podman("rm", loop)
    podman("container", "restore", f"--import={_FILE}")
    assert "10.9.9.9" in nft("list", "ruleset")
    assert _LOOP.step(podman, loop) == 1
