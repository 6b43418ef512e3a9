"""`torpor restore PATH`: what a checkpoint may ask of the host without `--trust`, and with it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.events import ProcessWatch, become_subreaper, time_limit_s
from torpor.base.errors import NotPermittedError
from torpor.engine import policy
from torpor.engine.options import STRANGERS, RestoreOptions, RestorePolicy
from torpor.engine.reading import read_images
from torpor.engine.session import RestoreSession
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.dirstore import DirStore
from torpor.images.store import load_all, load_one, store_all

pytestmark = pytest.mark.root
_TORPOR = [sys.executable, "-m", "torpor.cli.torpor"]
#: Says that the mounts are there, and becomes the sleeper.
_SHOW = 'mount --bind "$1" "$2" && echo ready && exec sleep 100000 >/dev/null'


def _torpor(*words: "str | Path | int") -> "subprocess.CompletedProcess[str]":
    line = [*_TORPOR, *map(str, words)]
    return subprocess.run(
        line, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=time_limit_s(60), check=False
    )


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A directory of the host's on a file system that is not the root's."""
    directory = Path(tempfile.mkdtemp(prefix="torpor-trust-", dir="/dev/shm"))
    yield directory
    shutil.rmtree(directory)


def _sleeper(source: Path, point: Path) -> "subprocess.Popen[str]":
    """A process in a mount namespace of its own that shows *source* at *point*."""
    null = subprocess.DEVNULL
    process = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", _SHOW, "sh", str(source), str(point)],
        stdin=null, stdout=subprocess.PIPE, stderr=null, text=True, start_new_session=True, cwd="/",
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert process.stdout.read() == ""  # it has become the sleeper
    process.stdout.close()
    return process


def test_the_host_elsewhere_than_the_host_has_it(elsewhere: Path, tmp_path: Path) -> None:
    become_subreaper()
    point, images = tmp_path / "point", tmp_path / "images"
    point.mkdir()
    (elsewhere / "secret").write_text("x")
    process = _sleeper(elsewhere, point)
    done = _torpor("checkpoint", process.pid, "-o", images)
    assert done.returncode == 0, done.stderr
    process.wait()
    done = _torpor("restore", images)
    assert done.returncode == 1 and "source" in done.stderr and "--trust" in done.stderr, done.stderr
    assert not os.path.exists(f"/proc/{process.pid}")
    done = _torpor("restore", "--trust", images)
    assert done.returncode == 0, done.stderr
    with ProcessWatch(process.pid) as watch:
        assert os.listdir(f"/proc/{process.pid}/root{point}") == ["secret"]
        watch.signal(signal.SIGKILL)
        assert watch.wait_ended(time_limit_s(10))
        watch.reap()


def test_the_host_as_the_host_has_it_needs_no_trust(elsewhere: Path, tmp_path: Path) -> None:
    become_subreaper()
    process = _sleeper(tmp_path, tmp_path)
    done = _torpor("checkpoint", process.pid, "-o", tmp_path / "images")
    assert done.returncode == 0, done.stderr
    process.wait()
    done = _torpor("restore", tmp_path / "images")
    assert done.returncode == 0, done.stderr
    with ProcessWatch(process.pid) as watch:
        watch.signal(signal.SIGKILL)
        assert watch.wait_ended(time_limit_s(10))
        watch.reap()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a process that sleeps."""
    directory = tmp_path_factory.mktemp("images")
    null = subprocess.DEVNULL
    process = subprocess.Popen(["sleep", "1000"], stdin=null, stdout=null, stderr=null, start_new_session=True, cwd="/")
    done = _torpor("checkpoint", process.pid, "-o", directory / "set")
    process.wait()
    assert done.returncode == 0, done.stderr
    return directory / "set"


def _checked(directory: Path, wanted: RestorePolicy) -> None:
    with DirStore(directory, "r") as store:
        session = RestoreSession(store, RestoreOptions(policy=wanted))
        read_images(session)
        policy.check(session)


def _root(directory: Path) -> int:
    with DirStore(directory, "r") as store:
        return load_all(store, kinds.PSTREE)[0].pid


def _label(directory: Path) -> None:
    pid = _root(directory)
    with DirStore(directory, "r") as store:
        core = load_one(store, kinds.CORE, pid)
    core.thread_core.creds.lsm_profile = "some_profile"
    with DirStore(directory, "w") as out:
        store_all(out, "CORE", [core], pid)


def _serial_line(directory: Path) -> None:
    termios = m.termios_entry(c_iflag=0, c_oflag=0, c_cflag=0, c_lflag=0, c_line=0, c_ispeed=0, c_ospeed=0)
    info = m.tty_info_entry(
        id=1, type=m.TtyType.SERIAL, locked=False, exclusive=False, packet_mode=False, sid=0, pgrp=0
    )
    info.rdev = 4 << 20 | 64
    info.termios.CopyFrom(termios)
    with DirStore(directory, "w") as out:
        store_all(out, "TTY_INFO", [info])


def _binfmt_misc(directory: Path) -> None:
    pid = _root(directory)
    with DirStore(directory, "r") as store:
        ids = load_one(store, kinds.IDS, pid)
    ids.mnt_ns_id = 77
    entry = m.mnt_entry(
        fstype=4, mnt_id=1, root_dev=9, parent_mnt_id=0, flags=0, root="/", mountpoint="/x", source="none", options=""
    )
    with DirStore(directory, "w") as out:
        store_all(out, "IDS", [ids], pid)
        store_all(out, "MNTS", [entry], 77)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (_label, "creds: lsm_profile"),
        (_serial_line, "tty-info.img: type"),
        (_binfmt_misc, "mountpoints-77.img: fstype"),
    ],
)
def test_what_the_policy_of_strangers_refuses(change: object, field: str, images: Path, tmp_path: Path) -> None:
    directory = tmp_path / "set"
    shutil.copytree(images, directory, ignore=shutil.ignore_patterns("torpor.manifest"))
    _checked(directory, STRANGERS)
    assert callable(change)
    change(directory)
    with pytest.raises(NotPermittedError, match=field) as caught:
        _checked(directory, STRANGERS)
    assert "--trust" in caught.value.describe()
    _checked(directory, RestorePolicy())
