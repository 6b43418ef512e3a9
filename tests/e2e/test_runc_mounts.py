"""The mounts of runc's containers: the same ones afterwards, with what was open on them."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.runc import COUNTER, Container

pytestmark = [pytest.mark.root, pytest.mark.real]


def _mounts(container: Container) -> dict[str, tuple[str, str]]:
    """Mount point -> what part of its file system it shows, and its flags."""
    rows = (line.split() for line in Path(f"/proc/{container.pid}/mountinfo").read_text().splitlines())
    return {row[4]: (row[3], row[5]) for row in rows}


def _bind(source: Path, destination: str, *options: str) -> dict[str, object]:
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["bind", *options]}


@contextmanager
def _overlaid(container: Container) -> Iterator[None]:
    """The container's root is an overlay over the bundle's, as an engine mounts it."""
    lower = container.rootfs
    container.rootfs = container.base / "merged"
    for name in ("merged", "upper", "work"):
        (container.base / name).mkdir()
    layers = f"lowerdir={lower},upperdir={container.base / 'upper'},workdir={container.base / 'work'}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(container.rootfs)], check=True)
    container.config["root"]["path"] = str(container.rootfs)
    try:
        yield
    finally:
        container.runc("delete", "--force", container.name, check=False)
        subprocess.run(["umount", "--lazy", str(container.rootfs)], check=True)


def test_all_of_a_container(tmp_path: Path) -> None:
    """Volumes, an init that is bound from outside, read-only and masked paths, control groups, a tmpfs."""
    (tmp_path / "volume").mkdir()
    (tmp_path / "file").write_text("bound\n")
    script = f"echo kept > /secrets/kept; cd /volume; exec 5>/volume/log 6</etc/file; {COUNTER}"
    with Container(["/dev/busybox", "sh", "-c", script]) as container:
        init = tmp_path / "init"
        init.write_bytes((container.rootfs / "bin/busybox").read_bytes())
        init.chmod(0o755)
        tmpfs = {"destination": "/secrets", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=64k"]}
        container.config["mounts"] += [
            _bind(tmp_path / "volume", "/volume", "rw"), _bind(tmp_path / "file", "/etc/file", "ro"),
            _bind(init, "/dev/busybox", "ro"), tmpfs,
        ]  # fmt: skip
        container.run()
        container.wait_counting()
        before = _mounts(container)
        for _ in range(2):
            container.checkpoint()
            container.restore()
            container.wait_counting()
            assert _mounts(container) == before
        assert container.exec("cat", "/secrets/kept") == "kept"
        links = {name: os.readlink(f"/proc/{container.pid}/{name}") for name in ("exe", "cwd", "fd/5", "fd/6")}
        assert links == {"exe": "/dev/busybox", "cwd": "/volume", "fd/5": "/volume/log", "fd/6": "/etc/file"}


def test_deleted_files_of_both_layers() -> None:
    script = f"echo upper > /tmp/upper; exec 5<>/tmp/upper 6</etc/lower; rm /tmp/upper /etc/lower; {COUNTER}"
    with Container(["sh", "-c", script]) as container:
        (container.rootfs / "etc/lower").write_text("lower\n")
        (container.rootfs / "bin/rm").symlink_to("busybox")
        with _overlaid(container):
            container.run()
            container.wait_counting()
            container.checkpoint()
            container.restore()
            container.wait_counting()
            for number, text in ((5, "upper\n"), (6, "lower\n")):
                link = f"/proc/{container.pid}/fd/{number}"
                assert os.readlink(link).endswith(" (deleted)")
                assert Path(link).read_text() == text


def test_a_read_only_root() -> None:
    """Where a file that was deleted before it became read-only is open."""
    script = "exec 5</etc/open; echo > /ready/fifo; while :; do sleep 0.1; done"
    with Container(["sh", "-c", script]) as container:
        (container.rootfs / "etc/open").write_text("open\n")
        ready = container.base / "ready"
        ready.mkdir()
        os.mkfifo(ready / "fifo")
        container.config["root"]["readonly"] = True
        tmpfs = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}
        container.config["mounts"] += [_bind(ready, "/ready", "rw"), tmpfs]
        with _overlaid(container):
            container.run()
            (ready / "fifo").read_text()
            (container.rootfs / "etc/open").unlink()
            before = _mounts(container)
            container.checkpoint()
            container.restore()
            assert _mounts(container) == before
            assert Path(f"/proc/{container.pid}/fd/5").read_text() == "open\n"
