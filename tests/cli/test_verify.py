"""`torpor verify`: a checkpoint that is as it was written, and one byte of it that is not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root
_TORPOR = [sys.executable, "-m", "torpor.cli.torpor"]


def _verify(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*_TORPOR, "verify", *map(str, words)], capture_output=True, text=True, check=False)


def _checkpoint(target: Path) -> None:
    line = ["sleep", "1000"]
    null = subprocess.DEVNULL
    sleeper = subprocess.Popen(line, stdin=null, stdout=null, stderr=null, start_new_session=True, cwd="/")
    try:
        subprocess.run([*_TORPOR, "checkpoint", str(sleeper.pid), "-o", str(target)], capture_output=True, check=True)
    finally:
        sleeper.kill()
        sleeper.wait()


@pytest.mark.parametrize("name", ["pages-1.img", "pstree.img", "inventory.img"])
def test_a_changed_byte_is_found(name: str, tmp_path: Path) -> None:
    images = tmp_path / "nap"
    _checkpoint(images)
    assert "all as written" in _verify(images).stdout
    fd = os.open(images / name, os.O_RDWR)
    last = os.fstat(fd).st_size - 1
    os.pwrite(fd, bytes([os.pread(fd, 1, last)[0] ^ 1]), last)
    os.close(fd)
    done = _verify("--json", images)
    assert done.returncode == 1, done.stderr
    assert done.stderr or json.loads(done.stdout)["damaged"] == {name: "not what was written"}


def test_missing_and_shortened_images_and_archives(tmp_path: Path) -> None:
    images, archive = tmp_path / "nap", tmp_path / "nap.tar.gz"
    _checkpoint(archive)
    assert "all as written" in _verify(archive).stdout
    _checkpoint(images)
    (images / "seccomp.img").unlink()
    os.truncate(images / "pages-1.img", 4096)
    done = _verify(images)
    assert done.returncode == 1 and "seccomp.img: missing" in done.stdout and "pages-1.img: 4096 bytes" in done.stdout


def test_what_cannot_be_compared_is_not_called_good(tmp_path: Path) -> None:
    images = tmp_path / "nap"
    _checkpoint(images)
    (images / "torpor.manifest").unlink()
    done = _verify(images)
    assert done.returncode != 0 and "no sums to compare with" in done.stderr
    assert _verify("/nowhere").returncode != 0
