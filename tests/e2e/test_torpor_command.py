"""`torpor` on real containers of Podman and of runc alone, with what `torpor setup` put in place."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.private_podman import IMAGE, PrivatePodman

pytestmark = [pytest.mark.root, pytest.mark.real]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivatePodman]:
    with PrivatePodman(tmp_path_factory.mktemp("podman")) as found:
        found.make_image()
        found.torpor("setup")
        yield found


@pytest.fixture
def host(everything: PrivatePodman) -> Iterator[PrivatePodman]:
    """A host without containers, on which torpor is set up."""
    yield everything
    everything.podman("rm", "--all", "--force", "--time=0")


def test_a_container_sleeps_in_an_archive_and_wakes_several_times(host: PrivatePodman, tmp_path: Path) -> None:
    ident = host.start("web")
    assert host.ask("web") == 1
    checked = host.torpor("check", "web").stdout
    assert "podman:web: nothing in the way" in checked and "/usr/local/sbin/criu" in checked and "torpor" in checked
    archive = tmp_path / "web.tar.gz"
    done = host.torpor("checkpoint", "web", "-o", archive)
    assert f"podman:web: in {archive}" in done.stdout
    assert host.containers() == {"web": "exited"}

    told = json.loads(host.torpor("inspect", "--json", archive).stdout)
    assert (told["container"]["name"], told["container"]["id"]) == ("web", ident)
    assert told["container"]["image"] == f"{IMAGE}:latest" and told["archive"]["remarks"] == []
    (process,) = told["processes"]
    assert process["command"] == ["/counter_server"] and process["memory_bytes"] > 0
    assert told["container"]["networks"][0]["addresses"][0].startswith("10.")
    assert any("8080 (listening)" in socket for socket in told["sockets"])

    done = host.torpor("restore", archive, "--name", "hello", "--copies", "3")
    copies = ["hello1", "hello2", "hello3"]
    addresses = {host.inspect(name, "{{.NetworkSettings.IPAddress}}") for name in copies}
    assert len(addresses) == 3 and all(address in done.stdout for address in addresses)
    assert [host.ask(name) for name in copies] == [2, 2, 2]
    assert host.ask("hello2") == 3


def test_copies_are_all_or_none(host: PrivatePodman, tmp_path: Path) -> None:
    host.start("web")
    archive = tmp_path / "web.tar"
    host.torpor("checkpoint", "web", "-o", archive, "--compress", "none", "--leave-running")
    host.start("copy3")
    done = host.torpor("restore", archive, "--name", "copy", "--copies", "3", check=False)
    assert done.returncode == 1 and "already in use" in done.stderr and "gone again" in done.stderr
    assert host.containers() == {"web": "running", "copy3": "running"}


def test_podmans_own_storage_and_images(host: PrivatePodman) -> None:
    host.start("web")
    host.torpor("checkpoint", "web", "--create-image", "localhost/asleep")
    assert host.containers() == {"web": "exited"}
    host.torpor("restore", "localhost/asleep", "--name", "other")
    assert host.ask("other") == 1
    host.torpor("checkpoint", "other", "--keep")
    assert json.loads(host.torpor("inspect", "--json", "other").stdout)["processes"][0]["name"] == "counter_server"
    host.torpor("restore", "podman:other")
    assert host.ask("other") == 2
    again = host.torpor("restore", "other", check=False)
    assert again.returncode == 2 and "runs already" in again.stderr


def test_what_cannot_be_is_told_and_the_container_runs_on(host: PrivatePodman, tmp_path: Path) -> None:
    host.start("web")
    done = host.torpor("checkpoint", "web", "--link-remap", "-o", tmp_path / "x", check=False)
    assert done.returncode == 2 and "link-remap" in done.stderr and "/etc/criu/runc.conf" in done.stderr
    done = host.torpor("checkpoint", "podman:nothing", "-o", tmp_path / "x", check=False)
    assert done.returncode == 1 and "called nothing" in done.stderr
    host.podman("pause", "web")
    done = host.torpor("check", "web", check=False)
    assert done.returncode == 1 and "it is paused" in done.stdout
    host.podman("unpause", "web")
    assert host.torpor("check", "web").returncode == 0
    assert host.containers() == {"web": "running"}


def test_what_podman_leaves_out_of_an_archive_is_carried(host: PrivatePodman, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/torpor-only-in-the-image").write_text("old\n")
    archive, image = tmp_path / "web.tar.gz", tmp_path / "image.tar"
    host.run("sh", "-c", f"cp {host.directory}/image.tar {image}; tar -C {tmp_path} -rf {image} etc")
    host.podman("import", "--change", 'ENTRYPOINT ["/counter_server"]', str(image), "localhost/etc")
    for more in ([], ["--rm"]):
        host.podman("run", "-d", "--name", "web", "--ulimit", "host", *more, "localhost/etc")
        assert host.ask("web") == 0
        inside = f"/proc/{host.inspect('web', '{{.State.Pid}}')}/root"
        host.run("sh", "-c", f"echo new > {inside}/etc/torpor-only-in-the-image; echo more > {inside}/other")
        host.torpor("checkpoint", "web", "-o", archive)
        assert archive.read_bytes().startswith(b"\x1f\x8b"), "its name says gzip"
        host.podman("rm", "--all", "--force", "--time=0")
        host.torpor("restore", archive)
        inside = f"/proc/{host.inspect('web', '{{.State.Pid}}')}/root"
        assert host.run("cat", f"{inside}/etc/torpor-only-in-the-image", f"{inside}/other").stdout == "new\nmore\n"
        assert host.ask("web") == 1
        host.podman("rm", "--all", "--force", "--time=0")
    host.podman("rmi", "localhost/etc")


def test_no_room_for_an_archive_is_found_out_before(host: PrivatePodman, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    host.run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small)
    try:
        host.podman("run", "-d", "--rm", "--name", "web", "--ulimit", "host", IMAGE)
        done = host.torpor("checkpoint", "web", "-o", small / "web.tar.gz", check=False)
        assert done.returncode == 1 and "started with --rm, and would be lost" in done.stderr
        assert host.containers() == {"web": "running"}
    finally:
        host.run("umount", small)


def test_what_a_restore_would_not_find_is_said_before(host: PrivatePodman, tmp_path: Path) -> None:
    bound, secret, archive = tmp_path / "bound", tmp_path / "secret", tmp_path / "web.tar"
    bound.mkdir()
    secret.write_text("hidden")
    host.podman("secret", "create", "hush", str(secret))
    try:
        host.start("web", "--secret", "hush", f"--volume={bound}:/data")
        lost = "an archive does not hold its secrets (hush)"
        assert f"podman:web: will be lost: {lost}" in host.torpor("check", "web").stdout
        assert lost in host.torpor("checkpoint", "web", "-o", archive, "--leave-running").stderr
        bound.rmdir()
        gone = f"has {bound} bound on /data, and it is not there any more"
        checked = host.torpor("check", "web", check=False)
        assert checked.returncode == 1 and gone in checked.stdout
        refused = host.torpor("checkpoint", "web", check=False)
        assert refused.returncode == 1 and gone in refused.stderr
        assert host.containers() == {"web": "running"}
        bound.mkdir()
        host.torpor("checkpoint", "web")
        host.torpor("restore", "web")
        assert host.ask("web") == 1
    finally:
        host.podman("rm", "--all", "--force", "--time=0")
        host.podman("secret", "rm", "hush")


def _is_named(host: PrivatePodman, engine: str, name: str, pid: int) -> None:
    """Checkpointed by its pid a container would be dead to its engine: it is told by name, and runs on."""
    what = f"pid {pid} is in the container {name} of {engine}, which would take it for dead"
    how = f"torpor checkpoint {engine}:{name}"
    done = host.torpor("check", str(pid), check=False)
    assert done.returncode == 1 and what in done.stdout and how in done.stdout
    for options in ((), ("--leave-running",), ("--yes", "--json")):
        done = host.torpor("checkpoint", str(pid), *options, "-o", host.directory / "by-pid", check=False)
        assert done.returncode == 1 and what in done.stderr and how in done.stderr
    assert not (host.directory / "by-pid").exists()
    assert Path(f"/proc/{pid}/exe").exists()


def test_a_container_by_its_pid(host: PrivatePodman) -> None:
    host.start("web")
    _is_named(host, "podman", "web", int(host.inspect("web", "{{.State.Pid}}")))
    assert host.ask("web") == 1


def test_runc_alone(host: PrivatePodman, tmp_path: Path) -> None:
    bundle, images = tmp_path / "bundle", tmp_path / "images"
    host.run("sh", "-c", f"mkdir -p {bundle}/rootfs && tar -C {bundle}/rootfs -xf {host.directory}/image.tar")
    host.run("runc", "spec", "--bundle", bundle)
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"args": ["/counter_server"], "terminal": False}
    config["process"].pop("rlimits", None)
    (bundle / "config.json").write_text(json.dumps(config))
    host.environment["TORPOR_RUNC"] = f"runc --root {tmp_path}/state"
    runc = ["runc", "--root", f"{tmp_path}/state"]
    try:
        host.run("sh", "-c", f"{' '.join(runc)} run --detach --bundle {bundle} torpor-alone </dev/null >/dev/null 2>&1")
        _is_named(host, "runc", "torpor-alone", json.loads(host.run(*runc, "state", "torpor-alone").stdout)["pid"])
        host.torpor("checkpoint", "torpor-alone", "-o", images)
        assert json.loads((images / "torpor-container.json").read_text())["engine"] == "runc"
        shown = host.torpor("inspect", images).stdout
        assert "torpor-alone" in shown and "counter_server" in shown
        torpor = f"{sys.executable} -m torpor.cli.torpor"
        host.run("sh", "-c", f"{torpor} restore {images} </dev/null >{tmp_path}/out 2>&1")
        assert "runc:torpor-alone: pid" in (tmp_path / "out").read_text()
        assert '"running"' in host.run(*runc, "state", "torpor-alone").stdout
        archive = tmp_path / "alone.tar.zst"
        host.torpor("checkpoint", "torpor-alone", "-o", archive)
        assert archive.read_bytes().startswith(b"\x28\xb5\x2f\xfd")
        assert not list(tmp_path.glob("alone.tar.zst?*"))
        assert "counter_server" in host.torpor("inspect", archive).stdout
        host.run("sh", "-c", f"{torpor} restore {archive} </dev/null >{tmp_path}/out 2>&1")
        assert "runc:torpor-alone: pid" in (tmp_path / "out").read_text()
        assert '"running"' in host.run(*runc, "state", "torpor-alone").stdout
    finally:
        host.run(*runc, "delete", "--force", "torpor-alone", check=False)
        del host.environment["TORPOR_RUNC"]


def test_setup_is_taken_back(host: PrivatePodman) -> None:
    assert "torpor" in host.run("criu", "--version").stdout
    status = json.loads(host.torpor("setup", "--status", "--json", check=False).stdout)
    (podman,) = [report for report in status["engines"] if report["engine"] == "podman"]
    assert podman["criu"]["path"] == "/usr/local/sbin/criu" and podman["criu"]["is_torpor"]
    assert podman["problems"] == []
    host.torpor("setup", "--undo")
    assert host.run("ls", "-A", "/usr/local/sbin").stdout == ""
    host.torpor("setup")
