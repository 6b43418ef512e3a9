"""The contents of a tmpfs through its archive: all that can be asked of a file, and GNU tar as writer and as reader."""

import fcntl
import gzip
import os
import shutil
import socket
import stat
import struct
import subprocess
import tarfile
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from torpor.images.errors import ImageError
from torpor.images.stores.memory import MemStore
from torpor.kernel.idmap import IDENTITY
from torpor.objects.ns.mnt import tmpfs

pytestmark = pytest.mark.root

_DEVICE = 77
_NAME = f"tmpfs-dev-{_DEVICE}.tar.gz.img"
_GETFLAGS, _SETFLAGS = 0x80086601, 0x40086602
_NODUMP, _APPEND = 0x40, 0x20
_ACL = struct.pack(
    "<I" + "HHI" * 5, 2, 1, 6, 0xFFFFFFFF, 2, 4, 1234, 4, 4, 0xFFFFFFFF, 16, 6, 0xFFFFFFFF, 32, 0, 0xFFFFFFFF
)
_DEPTH = 30


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory in a tmpfs."""
    made = Path(tempfile.mkdtemp(prefix="torpor-tmpfs-", dir="/dev/shm"))
    try:
        yield made
    finally:
        for path in made.glob("*/flags/*"):
            _set_flags(path, 0)
        subprocess.run(["rm", "-rf", str(made)], check=True)


def _set_flags(path: Path, flags: int) -> None:
    with path.open("rb") as stream, suppress(OSError):  # not before Linux 6.6
        fcntl.ioctl(stream.fileno(), _SETFLAGS, struct.pack("I", flags))


def _flags(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME)
    try:
        return int(struct.unpack("I", fcntl.ioctl(fd, _GETFLAGS, bytes(4)))[0]) & (_NODUMP | _APPEND)
    except OSError:
        return 0
    finally:
        os.close(fd)


def _fill(top: Path) -> None:
    (top / "plain").write_bytes(b"hello")
    os.link(top / "plain", top / "hard")
    (top / "empty").touch()
    (top / "suid").write_bytes(b"x")
    os.symlink("plain", top / "soft")
    os.link(top / "soft", top / "soft too", follow_symlinks=False)
    os.symlink("/" + "long/" * 100, top / "long soft")
    os.mkfifo(top / "fifo")
    os.link(top / "fifo", top / "fifo too")
    os.mknod(top / "null", stat.S_IFCHR | 0o606, os.makedev(1, 3))
    os.mknod(top / "disk", stat.S_IFBLK | 0o600, os.makedev(259, 70000))
    for strange in (b"\xff\xfe not utf-8", "snö \u2603".encode(), b"line\nbreak", b"n" * 255, b"-rf", b" "):
        (top / os.fsdecode(strange)).write_bytes(strange)
    _fill_sparse(top)
    (top / "flags").mkdir()
    for name, flags in (("nodump", _NODUMP), ("append", _APPEND)):
        (top / "flags" / name).write_bytes(b"f")
        _set_flags(top / "flags" / name, flags)
    (top / "dir").mkdir()
    for name in ("dead", "dead \udcff"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(top / "dir" / name))
    for key, value in (("user.x", b"v\0w"), ("trusted.a=b%c", b"\xff\xfe"), ("security.torpor", b"1\n2")):
        os.setxattr(top / "plain", key, value)
    os.setxattr(top / "soft", "trusted.y", b"of a link", follow_symlinks=False)
    os.setxattr(top / "plain", "system.posix_acl_access", _ACL)
    os.setxattr(top / "dir", "system.posix_acl_default", _ACL)
    _give_attributes(top)
    _make_deep(top / "deep")


def _fill_sparse(top: Path) -> None:
    pieces = {"middle": [(500 << 20, b"mid")], "end": [((1 << 30) - 5, b"ended")], "hole": [], "many": []}
    pieces["many"] = [(at << 16, b"piece") for at in range(300)]
    for name, written in pieces.items():
        with (top / name).open("wb") as stream:
            stream.truncate(1 << 30)
            for at, data in written:
                os.pwrite(stream.fileno(), data, at)
    with (top / "huge").open("wb") as stream:
        stream.truncate(1 << 42)
        os.pwrite(stream.fileno(), b"far", 1 << 41)


def _make_deep(top: Path) -> None:
    """A path that is longer than a path may be."""
    top.mkdir()
    fd = os.open(top, os.O_DIRECTORY)
    for _ in range(_DEPTH):
        os.mkdir("d" * 200, dir_fd=fd)
        below = os.open("d" * 200, os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, 0o640, dir_fd=fd))
    os.close(fd)


def _give_attributes(top: Path) -> None:
    """Owners, modes and times of each, all different; those of directories last."""
    paths = sorted(top.rglob("*"), reverse=True)
    for index, path in enumerate([*paths, top]):
        if path.name == "append":
            continue
        os.lchown(path, 12 + index, 3_000_000_000 + index if path.name == "suid" else 34 + index)
        if path.name == "suid":
            path.chmod(0o6755)
        elif path.is_dir() and not path.is_symlink():
            path.chmod(0o2770 | index % 8)
        mtime = (-1_500_000_000 if path.name == "empty" else 1_222_222_222_000_000_000) + index * 1_000_000_007
        os.utime(path, ns=(1_111_111_111_123_456_789 + index, mtime), follow_symlinks=False)


def _seen(top: Path) -> dict[str, tuple[object, ...]]:
    """What can be asked of everything below, by its path; what is linked hard has a number in common."""
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[int, int] = {}

    def look(fd: int, name: str, path: str) -> None:
        info = os.stat(name, dir_fd=fd, follow_symlinks=False)
        place = f"/proc/self/fd/{fd}/{name}"
        more: object = None
        if stat.S_ISREG(info.st_mode):
            more = (info.st_size, info.st_blocks, _flags(place), _content(place))
        elif stat.S_ISLNK(info.st_mode):
            more = os.readlink(name, dir_fd=fd)
        elif stat.S_ISDIR(info.st_mode):
            own = os.open(name, os.O_DIRECTORY | os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME, dir_fd=fd)
            children = sorted(os.listdir(own))
            for child in children:
                look(own, child, f"{path}/{child}")
            os.close(own)
        attributes = {key: os.getxattr(place, key, follow_symlinks=False) for key in _keys(place)}
        linked = inodes.setdefault(info.st_ino, len(inodes))
        device = info.st_rdev if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode) else 0
        # To read a symlink or a directory is to change when it was read.
        is_read = stat.S_ISDIR(info.st_mode) or stat.S_ISLNK(info.st_mode)
        times = (info.st_mtime_ns, 0 if is_read else info.st_atime_ns)
        found[path] = (info.st_mode, info.st_uid, info.st_gid, device, linked, times, attributes, more)

    fd = os.open(top, os.O_DIRECTORY | os.O_NOATIME)
    look(fd, ".", "")
    os.close(fd)
    return found


def _keys(place: str) -> list[str]:
    return sorted(os.listxattr(place, follow_symlinks=False))


def _content(place: str) -> list[tuple[int, bytes]]:
    fd = os.open(place, os.O_RDONLY | os.O_NOATIME)
    found, at = [], 0
    with suppress(OSError):
        while True:
            start = os.lseek(fd, at, os.SEEK_DATA)
            at = os.lseek(fd, start, os.SEEK_HOLE)
            found.append((start, os.pread(fd, at - start, start)))
    os.close(fd)
    return found


def _dump(top: Path) -> MemStore:
    store = MemStore()
    fd = os.open(top, os.O_PATH | os.O_DIRECTORY)
    tmpfs.dump(store, [(fd, "/")], _DEVICE, IDENTITY)
    os.close(fd)
    return store


def _restore(store: MemStore, into: Path) -> None:
    into.mkdir()
    fd = os.open(into, os.O_RDONLY | os.O_DIRECTORY)
    try:
        tmpfs.restore(store, fd, _DEVICE, IDENTITY, may_be_special=True)
    finally:
        os.close(fd)


def _without(found: dict[str, tuple[object, ...]], change: Callable[..., tuple[object, ...] | None]) -> object:
    changed = {path: change(path, *value) for path, value in found.items()}
    return {path: value for path, value in changed.items() if value is not None}


def test_everything_is_as_it_was(base: Path) -> None:
    (base / "old").mkdir()
    _fill(base / "old")
    before = _seen(base / "old")
    store = _dump(base / "old")
    assert _seen(base / "old") == before, "the dump changed something"
    assert len(store.images[_NAME]) < 1 << 20
    _restore(store, base / "new")
    assert _seen(base / "new") == before


def test_gnu_tar_reads_it(base: Path) -> None:
    """As CRIU calls it; it cannot make sockets, set atime and inode flags, or enter paths that are too long."""
    (base / "old").mkdir()
    _fill(base / "old")
    subprocess.run(["rm", "-rf", str(base / "old" / "deep")], check=True)
    _give_attributes(base / "old")
    (base / "new").mkdir()
    line = ["tar", "--extract", "--gzip", "--no-unquote", "--no-wildcards", "--directory", str(base / "new")]
    # CRIU does not ask for extended attributes; that they are there is seen by asking.
    line += ["--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-permissions"]
    done = subprocess.run(line, input=_dump(base / "old").images[_NAME], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr

    def common(path: str, mode: int, *values: object) -> tuple[object, ...] | None:
        user, group, device, _, times, attributes, more = values
        if stat.S_ISSOCK(mode):
            return None
        assert isinstance(times, tuple)
        if isinstance(more, tuple):
            more = (more[0], more[3])
        return (mode, user, group, device, times[0], attributes, more)

    assert _without(_seen(base / "new"), common) == _without(_seen(base / "old"), common)


def test_what_gnu_tar_writes_is_read(base: Path) -> None:
    """As CRIU calls it: no sockets, no attributes, whole seconds."""
    (base / "old").mkdir()
    _fill(base / "old")
    line = ["tar", "--create", "--gzip", "--no-unquote", "--no-wildcards", "--one-file-system", "--check-links"]
    line += ["--preserve-permissions", "--sparse", "--numeric-owner", "--directory", str(base / "old"), "."]
    made = subprocess.run(line, capture_output=True, check=False)
    assert made.returncode == 0, made.stderr
    store = MemStore()
    store.images[_NAME] = bytearray(made.stdout)
    _restore(store, base / "new")

    def common(path: str, mode: int, *values: object) -> tuple[object, ...] | None:
        user, group, device, _, times, _, more = values
        if stat.S_ISSOCK(mode):
            return None
        if path.startswith("/dir") or path in {"/plain", "/hard"}:
            mode = 0  # an access list is seen in it
        assert isinstance(times, tuple)
        if isinstance(more, tuple):
            more = (more[0], more[3])
        return (mode, user, group, device, times[0] // 10**9, more)

    assert _without(_seen(base / "new"), common) == _without(_seen(base / "old"), common)


@pytest.mark.parametrize("name", ["../../out", "/out", "link/out", "a/../../../out"])
def test_no_name_leads_outside(base: Path, name: str) -> None:
    import io
    import tarfile

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(base)
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    store = MemStore()
    store.images[_NAME] = bytearray(packed.getvalue())
    with suppress(Exception):
        _restore(store, base / "new")
    assert not (base / "out").exists() and not Path("/out").exists()


def test_damage_is_told(base: Path) -> None:
    (base / "old").mkdir()
    (base / "old" / "file").write_bytes(b"x" * 100_000)
    whole = gzip.decompress(_dump(base / "old").images[_NAME])
    store = MemStore()
    store.images[_NAME] = bytearray(gzip.compress(whole[:5000]))
    with pytest.raises(ImageError, match=r"tmpfs|cut off"):
        _restore(store, base / "new")


def _header(kind: bytes, size: int) -> bytes:
    head = tarfile.TarInfo("x")
    head.type, head.size = kind, size
    return head.tobuf(tarfile.USTAR_FORMAT)


#: Extended headers that expand to a hundred times as much, and maps of sparse files that are none.
_MAP = b"22 GNU.sparse.major=1\n" + b"22 GNU.sparse.minor=0\n" + b"27 GNU.sparse.realsize=999\n"
_HOSTILE = {
    "records": lambda: _header(b"x", 128 << 20) + bytes(128 << 20),
    "a name": lambda: _header(b"L", 128 << 20) + b"a" * (128 << 20),
    "a map": lambda: (
        _header(b"x", len(_MAP)) + _MAP.ljust(512, b"\0") + _header(b"0", 512) + b"9999\n".ljust(512, b"1")
    ),
    "nothing but headers": lambda: (_header(b"L", 512) + b"a" * 512) * 2000,
}


@pytest.mark.parametrize("kind", _HOSTILE)
def test_headers_are_believed_up_to_a_limit(base: Path, kind: str) -> None:
    store = MemStore()
    store.images["tmpfs-dev-9.tar.gz.img"] = bytearray(gzip.compress(_HOSTILE[kind](), 1))
    (base / "new").mkdir()
    fd = os.open(base / "new", os.O_RDONLY | os.O_DIRECTORY)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError):
            tmpfs.restore(store, fd, 9, IDENTITY, True)
        assert not tmpfs.is_empty(store, 9)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
        os.close(fd)


def test_a_part_that_lies_in_another_is_there_once(base: Path) -> None:
    (base / "old" / "a").mkdir(parents=True)
    (base / "old" / "a" / "file").touch()
    store = MemStore()
    fds = [os.open(path, os.O_PATH) for path in (base / "old" / "a", base / "old")]
    tmpfs.dump(store, [(fds[0], "/a"), (fds[1], "/")], _DEVICE, IDENTITY)
    for fd in fds:
        os.close(fd)
    _restore(store, base / "new")
    assert sorted(_seen(base / "new")) == ["", "/a", "/a/file"]
    shutil.rmtree(base / "new")
