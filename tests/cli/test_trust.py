"""`torpor restore PATH`: what a checkpoint may ask of the host without `--trust`, and with it."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.events import ProcessWatch, become_subreaper, time_limit_s
from harness.skips import need_mounted_root
from torpor.base.errors import NotPermittedError
from torpor.engine.options import STRANGERS, RestoreOptions, RestorePolicy
from torpor.engine.restore import policy
from torpor.engine.restore.reading import read_images
from torpor.engine.restore.session import RestoreSession
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import load_all, load_one, store_all
from torpor.images.stores.directory import DirStore

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
    need_mounted_root()
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
    need_mounted_root()
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


def _task(change: "Callable[[m.core_entry], object]") -> "Callable[[Path], None]":
    """The core image of the root, changed."""

    def apply(directory: Path) -> None:
        pid = _root(directory)
        with DirStore(directory, "r") as store:
            core = load_one(store, kinds.CORE, pid)
        change(core)
        with DirStore(directory, "w") as out:
            store_all(out, "CORE", [core], pid)

    return apply


def _limit(number: int) -> "Callable[[Path], None]":
    def raise_it(core: m.core_entry) -> None:
        core.tc.rlimits.rlimits[number].max = resource.getrlimit(number)[1] + 5

    return _task(raise_it)


#: By the field that the refusal names.
_PRECEDENCE = {
    "sched_policy: real-time": _task(lambda core: setattr(core.thread_core, "sched_policy", 1)),
    "sched_policy: real-time scheduling": _task(lambda core: setattr(core.thread_core, "sched_policy", 2 | 1 << 30)),
    "sched_policy: deadline": _task(lambda core: setattr(core.thread_core, "sched_policy", 6)),
    "sched_nice": _task(lambda core: setattr(core.thread_core, "sched_nice", -15)),
    "torpor_ioprio": _task(lambda core: setattr(core.thread_core, "torpor_ioprio", 1 << 13 | 4)),
    "torpor_io_flusher": _task(lambda core: setattr(core.thread_core, "torpor_io_flusher", 1)),
    "oom_score_adj": _task(lambda core: setattr(core.tc, "oom_score_adj", -1000)),
    "torpor_autogroup_nice": _task(lambda core: setattr(core.tc, "torpor_autogroup_nice", -10)),
    "RLIMIT_RTPRIO": _limit(14),
    "RLIMIT_NICE": _limit(13),
}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        *((change, field) for field, change in _PRECEDENCE.items()),
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


def test_a_tun_device_of_the_hosts_network(images: Path, tmp_path: Path) -> None:
    """No image makes an interface there, or takes one, with `--trust` neither: no dump writes such a thing."""
    directory = tmp_path / "set"
    shutil.copytree(images, directory, ignore=shutil.ignore_patterns("torpor.manifest"))
    with DirStore(directory, "r") as store:
        files, ids = load_all(store, kinds.FILES), load_one(store, kinds.IDS, _root(directory))
    number = max(entry.id for entry in files) + 1
    tunf = m.tunfile_entry(id=number, netdev="torpor-evil0", ns_id=ids.net_ns_id)
    files.append(m.file_entry(type=m.fd_types.TUNF, id=number, tunf=tunf))
    with DirStore(directory, "w") as out:
        store_all(out, "FILES", files)
    done = _torpor("restore", "--trust", directory)
    assert done.returncode == 1 and "netdev" in done.stderr and "torpor-evil0" in done.stderr, done.stderr
    assert not os.path.exists("/sys/class/net/torpor-evil0")


_CAPABILITY = "0100000200040000000000000000000000000000"
_OPEN_DELETED = "p = '{name}'; f = open(p, 'w'); f.write('x'); os.fchmod(f.fileno(), {mode:#o}); os.unlink(p)"
_BECOME = "import os; {do}; os.write(1, b'!'); os.dup2(os.open('/dev/null', 1), 1); import signal; signal.pause()"


def _started(line: "list[str]") -> "subprocess.Popen[bytes]":
    need_mounted_root()
    process = subprocess.Popen(
        line,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    assert process.stdout is not None and process.stdout.read(1) == b"!"
    process.stdout.close()
    return process


def _refused_then_trusted(process: "subprocess.Popen[bytes]", images: Path, words: "tuple[str, ...]") -> ProcessWatch:
    done = _torpor("checkpoint", process.pid, "-o", images)
    assert done.returncode == 0, done.stderr
    process.wait()
    done = _torpor("restore", images)
    assert done.returncode == 1 and "--trust" in done.stderr, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert not os.path.exists(f"/proc/{process.pid}")
    done = _torpor("restore", "--trust", images)
    assert done.returncode == 0, done.stderr
    return ProcessWatch(process.pid)


@pytest.mark.parametrize(("mode", "capability"), [(0o4755, ""), (0o2711, ""), (0o755, _CAPABILITY)])
def test_a_deleted_file_that_gives_rights(mode: int, capability: str, tmp_path: Path) -> None:
    become_subreaper()
    do = _OPEN_DELETED.format(name=tmp_path / "file", mode=mode)
    if capability:
        do += f"; os.setxattr(f.fileno(), 'security.capability', bytes.fromhex('{capability}'))"
    process = _started([sys.executable, "-c", _BECOME.format(do=do)])
    said = ("ghost-file-1.img", "capabilities" if capability else "mode")
    with _refused_then_trusted(process, tmp_path / "images", said) as watch:
        found = [Path(f"/proc/{process.pid}/fd/{number}") for number in os.listdir(f"/proc/{process.pid}/fd")]
        deleted = next(each for each in found if each.stat().st_mode & 0o7777 == mode and not each.stat().st_nlink)
        assert bool(capability) == ("security.capability" in os.listxattr(deleted))
        watch.signal(signal.SIGKILL)
        assert watch.wait_ended(time_limit_s(10))
        watch.reap()


_IN_TMPFS = {
    "set-uid": ("open('{0}/x', 'w').close(); os.chmod('{0}/x', 0o4755)", "mode 4755"),
    "a disk": ("os.mknod('{0}/x', 0o60600, os.makedev(7, 0))", "block device 7:0"),
    "a console": ("os.mknod('{0}/x', 0o20600, os.makedev(5, 1))", "5:1"),
    "capabilities": (
        "open('{0}/x', 'w').close(); os.setxattr('{0}/x', 'security.capability', bytes.fromhex('{1}'))",
        "a file with capabilities",
    ),
}


@pytest.mark.parametrize("what", _IN_TMPFS)
def test_what_gives_rights_in_a_tmpfs(what: str, tmp_path: Path) -> None:
    become_subreaper()
    do, said = _IN_TMPFS[what]
    place = tmp_path / "tmpfs"
    place.mkdir()
    python = _BECOME.format(do=do.format(place, _CAPABILITY))
    shell = 'mount -t tmpfs tmpfs "$1" && exec "$2" -c "$3"'
    process = _started(["unshare", "-m", "sh", "-c", shell, "sh", str(place), sys.executable, python])
    with _refused_then_trusted(process, tmp_path / "images", ("tmpfs", "x", said)) as watch:
        assert os.path.lexists(f"/proc/{process.pid}/root{place}/x")
        watch.signal(signal.SIGKILL)
        assert watch.wait_ended(time_limit_s(10))
        watch.reap()


def test_what_everybody_has_in_a_tmpfs_needs_no_trust(tmp_path: Path) -> None:
    become_subreaper()
    place = tmp_path / "tmpfs"
    place.mkdir()
    do = "[os.mknod('%s/%d.%d' % ('{0}', *n), 0o20666, os.makedev(*n)) for n in ((1, 3), (1, 9), (5, 0), (5, 2))]"
    do += "; os.mkdir('{0}/d'); os.chmod('{0}/d', 0o3777)"
    shell = 'mount -t tmpfs tmpfs "$1" && exec "$2" -c "$3"'
    line = ["sh", "-c", shell, "sh", str(place), sys.executable, _BECOME.format(do=do.format(place))]
    process = _started(["unshare", "-m", *line])
    assert _torpor("checkpoint", process.pid, "-o", tmp_path / "images").returncode == 0
    process.wait()
    done = _torpor("restore", tmp_path / "images")
    assert done.returncode == 0, done.stderr
    with ProcessWatch(process.pid) as watch:
        assert sorted(os.listdir(f"/proc/{process.pid}/root{place}")) == ["1.3", "1.9", "5.0", "5.2", "d"]
        watch.signal(signal.SIGKILL)
        assert watch.wait_ended(time_limit_s(10))
        watch.reap()
