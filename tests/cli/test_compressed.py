"""``torpor checkpoint --compress zstd``: memory that takes less room, there and back."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import torpor
from torpor.cli import torpor as command
from torpor.images.errors import ImageError

pytestmark = pytest.mark.root
NULL = subprocess.DEVNULL
_MIB = 24
_PROGRAM = f"import os, signal; data = bytes(range(256)) * ({_MIB} << 12); os.close(1); signal.pause()"


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Iterator[subprocess.Popen[bytes]]":
    """A process whose memory can be compressed; whatever has its pid is ended."""
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "state"))
    line = [sys.executable, "-S", "-c", _PROGRAM]
    process = subprocess.Popen(line, stdin=NULL, stdout=subprocess.PIPE, stderr=NULL, cwd="/", start_new_session=True)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.read()  # it closes it when all is there
    yield process
    process.kill()
    process.wait()
    try:
        os.kill(process.pid, signal.SIGKILL)
        os.waitpid(process.pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


@pytest.mark.parametrize("name", ["nap", "nap.tar"])
def test_there_and_back(
    name: str, target: "subprocess.Popen[bytes]", tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / name
    assert command.main(["checkpoint", str(target.pid), "--compress", "zstd", "-o", str(place)]) == 0
    target.wait()
    files = [place] if place.is_file() else [*place.iterdir()]
    assert sum(path.stat().st_size for path in files) < _MIB << 18
    if place.is_dir():
        assert [path.name for path in files if path.name.startswith("pages-")] == ["pages-1.img.zst"]
    with torpor.Checkpoint(place) as made:
        assert made.memory_bytes > _MIB << 20 > made.size_bytes * 4
        assert _PROGRAM in made.processes[0].command
    assert command.main(["verify", str(place)]) == 0
    capsys.readouterr()
    assert command.main(["inspect", "--json", str(place)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["memory_bytes"] > _MIB << 20 > told["size_bytes"] * 4
    assert _PROGRAM in told["processes"][0]["command"]
    assert command.main(["restore", str(place)]) == 0
    assert f"pid {target.pid}" in capsys.readouterr().out


def test_a_second_one_takes_the_place_of_the_first(target: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    torpor.dump(target.pid, tmp_path / "nap", leave_running=True, compress=True)
    torpor.dump(target.pid, tmp_path / "nap", leave_running=True)
    assert not list((tmp_path / "nap").glob("*.zst"))
    torpor.dump(target.pid, tmp_path / "nap", leave_running=True, compress=True)
    assert not list((tmp_path / "nap").glob("pages-*.img"))


def test_a_damaged_block_is_refused(target: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    torpor.dump(target.pid, tmp_path / "nap", compress=True)
    target.wait()
    pages = tmp_path / "nap/pages-1.img.zst"
    data = bytearray(pages.read_bytes())
    data[len(data) // 2] ^= 0xFF
    pages.write_bytes(data)
    for verify in (True, False):
        with pytest.raises(ImageError, match=r"pages-1\.img(\.zst)?: damaged"):
            torpor.restore(tmp_path / "nap", verify=verify)
    assert command.main(["verify", str(tmp_path / "nap")]) == 1


def test_other_words_are_refused(target: "subprocess.Popen[bytes]", capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["checkpoint", str(target.pid), "--compress", "gzip", "-o", "nap"]) == 2
    assert "--compress gzip" in capsys.readouterr().err
