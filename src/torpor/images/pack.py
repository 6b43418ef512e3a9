"""One file for a whole checkpoint of processes: a tar archive of its directory, compressed as its name says.

    torpor-archive.json      says at the beginning, and so at once, that this is one
    checkpoint/NAME          each file of the directory, the small ones first

Podman's archives have their images in ``checkpoint/``, too.  Whoever reads an archive reads what a stranger may have
written: only plain files with plain names come out of it, and no more than there is room for.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from torpor.images.errors import ImageError, StoreError
from torpor.images.tarstream import DAMAGE, Content, Member, Readable, iter_members, open_compressed
from torpor.images.zstd import ZstdWriter
from torpor.images.zstd import load_library as load_zstd

#: What a name may end with, and how such an archive is compressed.
SUFFIXES = {
    ".tar.zst": "zstd", ".tar.zstd": "zstd", ".tzst": "zstd", ".tar.gz": "gzip", ".tgz": "gzip", ".tar": "none",
}  # fmt: skip
MARK = "torpor-archive.json"
FOLDER = "checkpoint/"
_OF_CONTAINER = "torpor-container.json"
_FIRST = (_OF_CONTAINER, "torpor.manifest", "torpor-job.json", "inventory.img", "pstree.img")
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@:-]{0,254}")
_CHUNK = 1 << 20
#: Of the space that is free, so much is left to others.
RESERVE = 64 << 20
_MAX_FILES = 1 << 20
_MAX_PADDING = 16 << 20


class Sink(Protocol):
    """What an archive is written into."""

    def write(self, data: bytes | memoryview, /) -> int: ...
    def close(self) -> None: ...


def compression_of(path: str | os.PathLike[str]) -> str | None:
    """How an archive called *path* is to be compressed; None where the name is none of an archive."""
    return next((how for suffix, how in SUFFIXES.items() if os.fspath(path).endswith(suffix)), None)


def write(directory: Path, path: Path, how: str) -> None:
    """Make the new file *path* of the plain files in *directory*, compressed *how*, on the disk.  StoreError."""
    try:
        with writer(path, how) as sink:
            send(directory, sink)
    except OSError as error:
        hint = "the file system is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
        raise StoreError(f"{path}: cannot write: {error.strerror}", hint=hint) from error


@contextmanager
def writer(path: Path, how: str) -> Iterator[Sink]:
    """The new file *path*: what is written there is compressed *how*, and on the disk at the end.  OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as stream:
        sink = compressed(stream, how)
        yield sink
        sink.close()
        stream.flush()
        os.fsync(stream.fileno())


def send(directory: Path, sink: Sink) -> None:
    """Write the archive of the plain files in *directory*.  OSError."""
    if os.path.lexists(directory / "parent"):
        raise ImageError(f"{directory}: its memory lies in part in another checkpoint", hint="keep it as a directory")
    found = [entry for entry in os.scandir(directory) if entry.is_file(follow_symlinks=False)]
    found.sort(key=lambda entry: (_rank(entry.name), entry.stat().st_size, entry.name))
    with tarfile.open(fileobj=cast("BinaryIO", sink), mode="w|", format=tarfile.GNU_FORMAT, bufsize=_CHUNK) as archive:
        archive.copybufsize = _CHUNK  # type: ignore[attr-defined]
        mark = tarfile.TarInfo(MARK)
        mark.mode = 0o600
        archive.addfile(mark)
        for entry in found:
            with open(entry.path, "rb") as stream:
                status = os.fstat(stream.fileno())
                info = tarfile.TarInfo(f"{FOLDER}{entry.name}")
                info.size, info.mtime, info.mode = status.st_size, int(status.st_mtime), stat.S_IMODE(status.st_mode)
                archive.addfile(info, stream)


def _rank(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def check(how: str) -> None:
    """ImageError where what compresses so is not installed; it is loaded from then on."""
    if how == "zstd":
        load_zstd()
    elif how == "lz4":
        from torpor.images import lz4

        lz4.load_library()


def compressed(stream: BinaryIO, how: str) -> Sink:
    """What is written there goes into *stream*, compressed *how*; closing it leaves that open."""
    if how == "zstd":
        return ZstdWriter(stream)
    if how == "lz4":
        from torpor.images.lz4 import Lz4Writer

        return Lz4Writer(stream)
    return _Gzip(stream) if how == "gzip" else _Plain(stream)


class _Plain:
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes | memoryview, /) -> int:
        return self._stream.write(data)

    def close(self) -> None:
        pass


class _Gzip:
    """gzip without a name or a time in its header: the same input, the same output."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._work = zlib.compressobj(3, zlib.DEFLATED, 16 + zlib.MAX_WBITS)

    def write(self, data: bytes | memoryview, /) -> int:
        self._stream.write(self._work.compress(data))
        return len(data)

    def close(self) -> None:
        self._stream.write(self._work.flush())


def compress(path: Path, how: str) -> None:
    """Have the archive *path* compressed *how*, at once or not at all.  StoreError."""
    made = path.with_name(f".{path.name}.torpor-new")
    try:
        with open_compressed(path) as (stream, _), writer(made, how) as sink:
            while data := stream.read(_CHUNK):
                sink.write(data)
        made.replace(path)
    except BaseException as error:
        made.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StoreError(f"{path}: cannot write: {error.strerror}") from error
        raise


def is_ours(path: Path) -> bool:
    """Whether *path* is an archive of this kind; ImageError where it is none at all."""
    with open_compressed(path) as (stream, _):
        for member, _ in iter_members(stream):
            return member.name == MARK
    return False


def is_of_container(path: Path) -> bool:
    """Whether it is one of ours, and says that it is of a container; ImageError where it is no archive at all."""
    with open_compressed(path) as (stream, _):
        names = [member.name for (member, _), _ in zip(iter_members(stream), range(2), strict=False)]
    return names == [MARK, f"{FOLDER}{_OF_CONTAINER}"]


def unpack(path: Path, directory: Path) -> None:
    """Put the files of the archive *path* into *directory*, which is empty and ours.  ImageError, StoreError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open_compressed(path) as (stream, _):
            for n_files, (member, content) in enumerate(iter_members(stream)):
                if n_files > _MAX_FILES:
                    raise ImageError(f"{path}: more than {_MAX_FILES} files are not believed")
                _take(path, fd, member, content)
            read_to_end(stream)
    except ImageError as error:
        raise named(path, error) from None
    finally:
        os.close(fd)


def named(path: str | os.PathLike[str], error: ImageError) -> ImageError:
    """The same error, with the archive's name."""
    return error if str(path) in str(error) else type(error)(f"{path}: {error}", hint=error.hint)


def read_to_end(stream: Readable) -> None:
    """What follows the last member: nothing, and the sum by which whatever is compressed is checked."""
    n_bytes = 0
    try:
        while data := stream.read(_CHUNK):
            n_bytes += len(data)
            if n_bytes > _MAX_PADDING:
                raise ImageError(f"more than {_MAX_PADDING} bytes follow the last file")
    except DAMAGE as error:
        raise ImageError(f"damaged, or cut off: {error}") from None


def image_name(path: str | os.PathLike[str], member: Member) -> str | None:
    """How the file is called that *member* is of a set; None for what is none of it.  ImageError for other members."""
    place = member.place
    name = place.removeprefix(FOLDER) if place is not None else ""
    if member.kind == "directory" and place in ("", FOLDER.rstrip("/")):
        return None
    if member.kind != "file" or not _PLAIN.fullmatch(name):
        raise ImageError(f"{path}: holds {member.name!r} ({member.kind}), which is none of a checkpoint's files")
    return None if name == MARK else name


def _take(path: Path, directory: int, member: Member, content: Content) -> None:
    name = image_name(path, member)
    if name is None:
        return
    room = os.fstatvfs(directory)
    if member.size > room.f_bavail * room.f_frsize - RESERVE:
        raise StoreError(
            f"{path}: no room to unpack {name} ({member.size} bytes)", hint="TORPOR_STATE names another place for it"
        )
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=directory), "wb") as stream:
            shutil.copyfileobj(cast("BinaryIO", content), stream, _CHUNK)
    except FileExistsError:
        raise ImageError(f"{path}: {name} is there twice") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot unpack {name}: {error.strerror}") from error
