"""File systems that are not known: refused, or mounted again where the user says so; mounts that are left out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.engine import EngineError
from harness.flavours import Flavour, start
from harness.skips import need_mounted_root
from harness.workload import Workload
from torpor.kernel.procfs.mountinfo import parse_line
from torpor.objects.ns.mnt import entries


def _mount_in(workload: Workload, *words: str) -> None:
    subprocess.run(["nsenter", f"--mount=/proc/{workload.pid}/ns/mnt", "mount", *words], check=True)


def _type_of(workload: Workload, point: Path) -> str:
    lines = Path(f"/proc/{workload.pid}/mountinfo").read_text().splitlines()
    return next((line.partition(" - ")[2].split()[0] for line in lines if line.split()[4] == str(point)), "")


@pytest.fixture(name="point")
def _point(tmp_path: Path) -> Path:
    point = tmp_path / "point"
    point.mkdir()
    return point


@pytest.mark.root
def test_unknown_file_system(point: Path) -> None:
    need_mounted_root()
    with start(Flavour.FRESH, "counter") as workload:
        workload.wait_ready()
        _mount_in(workload, "-t", "ramfs", "torpor", str(point))
        with pytest.raises(EngineError, match=f"{point} .* ramfs .*--enable-fs ramfs"):
            workload.dump(leave_running=True)
        workload.dump(options=["--enable-fs", "ramfs"])
        with pytest.raises(EngineError, match="--enable-fs ramfs"):
            workload.restore()
        workload.restore(options=["--enable-fs", "ramfs"])
        assert _type_of(workload, point) == "ramfs"
        workload.expect_pass()


@pytest.mark.root
def test_a_bound_directory_that_is_gone_is_told(point: Path, tmp_path: Path) -> None:
    """An engine would look for it by its name; `podman container checkpoint` itself says nothing."""
    need_mounted_root()
    source = tmp_path / "source"
    source.mkdir()
    with start(Flavour.FRESH, "counter") as workload:
        workload.wait_ready()
        _mount_in(workload, "--bind", str(source), str(point))
        source.rmdir()
        workload.dump(options=["--external", f"mnt[{point}]:bound"])
        assert (
            f"{point}: what is bound there has been removed from its place"
            in (workload.images / "dump.log").read_text()
        )
        source.mkdir()
        workload.restore(options=["--external", f"mnt[bound]:{source}"])
        assert _type_of(workload, point)
        workload.expect_pass()


@pytest.mark.parametrize("is_bound", [True, False])
def test_a_secret_is_told(tmp_path: Path, is_bound: bool) -> None:
    secret = tmp_path / "userdata" / "secrets" / "word"
    secret.parent.mkdir(parents=True)
    secret.touch()
    source = secret if is_bound else tmp_path / "word"
    source.touch()
    line = f"20 1 0:19 {source} /run/secrets/word rw - tmpfs tmpfs rw"
    said = entries._will_be_missed(parse_line(line))
    assert said.startswith("/run/secrets/word is a secret") == is_bound


@pytest.mark.root
def test_skipped_mount(point: Path) -> None:
    need_mounted_root()
    with start(Flavour.FRESH, "counter") as workload:
        workload.wait_ready()
        _mount_in(workload, "-t", "ramfs", "torpor", str(point))
        os.mkdir(f"/proc/{workload.pid}/root{point}/below")
        _mount_in(workload, "-t", "tmpfs", "torpor", f"{point}/below")
        workload.dump(options=["--skip-mnt", str(point)])
        workload.restore()
        assert not _type_of(workload, point)
        workload.expect_pass()


@pytest.mark.root
def test_an_overlay_whose_layers_are_elsewhere(tmp_path: Path, point: Path) -> None:
    """What Podman makes of `-v DIR:/data:O`: the container has no way to its layers, and a restore has none."""
    need_mounted_root()
    layers = tmp_path / "layers"
    names = ("lower", "upper", "work")
    named = ",".join(f"{name}dir={layers}/{name}" for name in names)
    with start(Flavour.FRESH, "counter") as workload:
        workload.wait_ready()
        layers.mkdir()
        _mount_in(workload, "-t", "tmpfs", "torpor", str(layers))
        for name in names:
            os.mkdir(f"/proc/{workload.pid}/root{layers}/{name}")
        _mount_in(workload, "-t", "overlay", "overlay", "-o", named, str(point))
        _mount_in(workload, "-t", "tmpfs", "torpor", str(layers))
        with pytest.raises(EngineError, match=f"{point} .* overlay, whose lowerdir .* not to be found there"):
            workload.dump()
        workload.dump(options=["--skip-mnt", str(point)])
        workload.restore()
        workload.expect_pass()


@pytest.mark.root
def test_an_option_that_only_mount_takes(tmp_path: Path, point: Path) -> None:
    """fsconfig(2), by which a restore mounts, wants values below 256 bytes."""
    need_mounted_root()
    layers = tmp_path / "layers"
    named = f"lowerdir={layers}/{'x' * 200}:{layers}/{'y' * 200}"
    with start(Flavour.FRESH, "counter") as workload:
        workload.wait_ready()
        layers.mkdir()
        _mount_in(workload, "-t", "tmpfs", "torpor", str(layers))
        for name in ("x" * 200, "y" * 200):
            os.mkdir(f"/proc/{workload.pid}/root{layers}/{name}")
        code = f"from torpor.kernel import mount; mount.mount('overlay', {str(point)!r}, 'overlay', 0, {named!r})"
        line = ["nsenter", f"--mount=/proc/{workload.pid}/ns/mnt", sys.executable, "-c", code]
        subprocess.run(line, check=True)
        with pytest.raises(EngineError, match=f"{point} .* overlay, whose lowerdir has more than 255 bytes"):
            workload.dump()
        workload.dump(options=["--skip-mnt", str(point)])
        workload.restore()
        workload.expect_pass()
