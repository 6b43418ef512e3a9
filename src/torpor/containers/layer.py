"""Directories that go along with a container: what it has written to its file system, ``/dev/shm``, volumes.

The source looks through a directory and sends all that is in it; when it looks again, what has changed since, and what
is gone.  A container's changes are the upper directory of its overlay, and there a character device 0:0 hides a file of
the image; the destination has the whole file system mounted, and removes what is hidden.

    length (4 bytes, big endian)    a JSON object: path, kind, ...    as many bytes as its "size" says

Of a large file that goes once more only the blocks go whose sums have changed: "parts" says which those are.

The destination takes nothing on trust: each path is gone along directory by directory, and no link is followed.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import struct
import time
from collections.abc import Iterator, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from xxhash import xxh3_128_digest

from torpor.base.errors import MigrationError, RefusedError
from torpor.base.fds import Closing, OwnedFd
from torpor.images.stores.stream import Way
from torpor.images.tarstream import Readable

_HEAD = struct.Struct(">I")
_MAX_ENTRY, _CHUNK = 1 << 20, 1 << 20
#: What is compared, of files that are no smaller than that; and no more parts of one than an entry has room for.
_BLOCK, _LARGE, _MAX_PARTS = 1 << 16, 1 << 20, 16384
_OVERLAY = "trusted.overlay."
#: What the clock of files may be behind.
_COARSE_NS = 20_000_000
_KINDS = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device",
}  # fmt: skip


# -- the source ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Seen:
    ino: int
    ctime_ns: int
    size: int
    mode: int
    at_ns: int

    def is_still(self, now: os.stat_result) -> bool:
        """Whether it is as it was."""
        return (
            (self.ino, self.ctime_ns, self.size, self.mode) == (now.st_ino, now.st_ctime_ns, now.st_size, now.st_mode)
            and now.st_ctime_ns < self.at_ns - _COARSE_NS
        )  # fmt: skip


class Directory:
    """One that goes along.  *whiteouts*: it is the upper one of an overlay."""

    def __init__(self, path: Path, *, whiteouts: bool = False) -> None:
        self._path, self._whiteouts = os.fspath(path), whiteouts
        self._seen: dict[str, _Seen] = {}
        #: Of large files: the sums of the blocks that the destination has.
        self._sums: dict[str, list[bytes]] = {}

    def send(self, way: Way, mapped: Set[str] = frozenset()) -> int:
        """What is new since the last time, and the end; how many files and directories that were.

        *mapped*: paths in it that are sent in any case, for who writes to a mapping is not seen.
        """
        links: dict[int, str] = {}
        seen: dict[str, _Seen] = {}
        n_sent = 0
        for path, about in self._walk():
            before = self._seen.get(path)
            seen[path] = _Seen(about.st_ino, about.st_ctime_ns, about.st_size, about.st_mode, time.time_ns())
            if before is None or not before.is_still(about) or path in mapped:
                if before is None or before.ino != about.st_ino or about.st_nlink > 1:
                    self._sums.pop(path, None)
                self._send_one(way, path, about, links)
                n_sent += 1
        for path in self._seen.keys() - seen.keys():
            self._sums.pop(path, None)
            _put(way, {"path": path, "kind": "gone"})
            n_sent += 1
        self._seen = seen
        way.finish()
        return n_sent

    def _walk(self) -> Iterator[tuple[str, os.stat_result]]:
        """Directories before what is in them."""
        waiting = [""]
        while waiting:
            place = waiting.pop()
            try:
                entries = sorted(os.scandir(os.path.join(self._path, place)), key=lambda entry: entry.name)
            except FileNotFoundError:
                continue
            for entry in entries:
                path = f"{place}/{entry.name}" if place else entry.name
                with suppress(FileNotFoundError):
                    about = entry.stat(follow_symlinks=False)
                    yield path, about
                    if stat.S_ISDIR(about.st_mode):
                        waiting.append(path)

    def _send_one(self, way: Way, path: str, about: os.stat_result, links: dict[int, str]) -> None:
        place = os.path.join(self._path, path)
        kind = _KINDS[stat.S_IFMT(about.st_mode)]
        entry: dict[str, object] = {
            "path": path, "kind": kind, "mode": stat.S_IMODE(about.st_mode), "uid": about.st_uid, "gid": about.st_gid,
            "mtime": about.st_mtime_ns,
        }  # fmt: skip
        if kind == "device":
            if self._whiteouts and stat.S_ISCHR(about.st_mode) and about.st_rdev == 0:
                _put(way, {"path": path, "kind": "gone"})
                return
            entry |= {"device": about.st_rdev, "block": stat.S_ISBLK(about.st_mode)}
        with suppress(FileNotFoundError):
            entry["attributes"] = self._attributes(place, entry)
            if kind == "symlink":
                entry["target"] = os.readlink(place)
            if kind != "file":
                _put(way, entry)
            elif about.st_nlink > 1 and links.setdefault(about.st_ino, path) != path:
                _put(way, {"path": path, "kind": "link", "target": links[about.st_ino]})
            else:
                with open(place, "rb", buffering=0) as file:
                    sums = _send_file(way, file.fileno(), entry, self._sums.get(path))
                if about.st_nlink == 1 and len(sums) * _BLOCK >= _LARGE:
                    self._sums[path] = sums
                else:
                    self._sums.pop(path, None)

    def _attributes(self, place: str, entry: dict[str, object]) -> dict[str, str]:
        found = {}
        for name in os.listxattr(place, follow_symlinks=False):
            if not name.startswith(_OVERLAY):
                found[name] = os.getxattr(place, name, follow_symlinks=False).hex()
            elif name == f"{_OVERLAY}opaque":
                entry["opaque"] = True
            elif name in (f"{_OVERLAY}redirect", f"{_OVERLAY}metacopy"):
                raise RefusedError(
                    f"{place} refers to another directory of its overlay, which cannot be carried yet",
                    hint="podman container checkpoint --export, and restore --import",
                )
        return found


def _send_file(way: Way, fd: int, entry: dict[str, object], known: list[bytes] | None) -> list[bytes]:
    """The file, or what is not as in *known*, the sums of the blocks that the other side has; the sums it has then.

    One that is written to meanwhile is sent once more when nobody does.
    """
    size = os.fstat(fd).st_size
    sums = list(known or ())[: -(-size // _BLOCK)]
    parts = _changed(fd, size, sums) if known is not None else []
    if known is None or len(parts) > _MAX_PARTS:
        parts = [(0, size)] if size else []
        _put(way, {**entry, "size": size})
    else:
        _put(way, {**entry, "size": size, "parts": parts})
    sums += [b""] * (-(-size // _BLOCK) - len(sums))
    for start, length in parts:
        for at in range(start, start + length, _CHUNK):
            data = _read(fd, at, min(_CHUNK, start + length - at))
            way.write(data)
            for offset in range(0, len(data), _BLOCK):
                sums[(at + offset) // _BLOCK] = xxh3_128_digest(data[offset : offset + _BLOCK])
    return sums


def _changed(fd: int, size: int, sums: list[bytes]) -> list[tuple[int, int]]:
    """Where it is other than *sums* say, in blocks: start and length."""
    found: list[tuple[int, int]] = []
    for at in range(0, size, _CHUNK):
        data = _read(fd, at, min(_CHUNK, size - at))
        for offset in range(0, len(data), _BLOCK):
            block, start = data[offset : offset + _BLOCK], at + offset
            number = start // _BLOCK
            if number < len(sums) and sums[number] == xxh3_128_digest(block):
                continue
            if found and sum(found[-1]) == start:
                found[-1] = (found[-1][0], found[-1][1] + len(block))
            else:
                found.append((start, len(block)))
    return found


def _read(fd: int, at: int, n_bytes: int) -> bytes:
    """So much from there; zeroes where the file has become shorter."""
    data = b""
    while len(data) < n_bytes and (more := os.pread(fd, n_bytes - len(data), at + len(data))):
        data += more
    return data + bytes(n_bytes - len(data))


def _put(way: Way, entry: dict[str, object]) -> None:
    data = json.dumps(entry).encode()
    if len(data) > _MAX_ENTRY:
        raise MigrationError(f"what is to be said of {str(entry['path'])[:200]} is too long")
    way.write(_HEAD.pack(len(data)) + data)


# -- the destination -------------------------------------------------------------------------------------------------


class Copy(Closing):
    """What a source sends becomes part of the directory *path*."""

    def __init__(self, path: Path) -> None:
        self._root = OwnedFd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def take(self, stream: Readable) -> None:
        """One look's worth; MigrationError where it makes no sense."""
        reader = _Reader(stream)
        directories: list[tuple[str, dict[str, object]]] = []
        while (entry := reader.entry()) is not None:
            path, kind = _text(entry, "path"), _text(entry, "kind")
            parts = _parts(path)
            parent = self._open_parent(parts)
            if parent is None:
                if kind == "gone":
                    continue
                _refuse(path)
            with parent:
                self._one(parent.fileno(), parts[-1], kind, entry, reader)
            if kind == "directory":
                directories.append((path, entry))
        for path, entry in reversed(directories):
            # What was put into it has changed its times.
            if (found := self._open_parent([*path.split("/"), ""])) is not None:
                with found:
                    os.utime(found.fileno(), ns=(_number(entry, "mtime"),) * 2)

    def _open_parent(self, parts: list[str]) -> OwnedFd | None:
        """Where the last of *parts* is; None where there is no such directory, or a link is on the way."""
        fd = OwnedFd(os.dup(self._root.fileno()))
        for part in parts[:-1]:
            try:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd.fileno())
            except OSError:
                fd.close()
                return None
            fd.close()
            fd = OwnedFd(inner)
        return fd

    def _one(self, parent: int, name: str, kind: str, entry: dict[str, object], reader: _Reader) -> None:
        if kind == "directory":
            self._directory(parent, name, entry)
            return
        if kind == "file":
            _take_file(parent, name, entry, reader)
            return
        _remove(parent, name)
        match kind:
            case "gone":
                return
            case "link":
                target = _parts(_text(entry, "target"))
                source = self._open_parent(target)
                if source is None:
                    _refuse("/".join(target))
                with source:
                    os.link(target[-1], name, src_dir_fd=source.fileno(), dst_dir_fd=parent, follow_symlinks=False)
                return
            case "symlink":
                os.symlink(_text(entry, "target"), name, dir_fd=parent)
            case "fifo" | "socket":
                os.mknod(name, (stat.S_IFIFO if kind == "fifo" else stat.S_IFSOCK) | 0o600, dir_fd=parent)
            case "device":
                form = stat.S_IFBLK if entry.get("block") is True else stat.S_IFCHR
                os.mknod(name, form | 0o600, _number(entry, "device"), dir_fd=parent)
            case _:
                _refuse(kind)
        _settle(f"/proc/self/fd/{parent}/{name}", entry, is_link=kind == "symlink")

    def _directory(self, parent: int, name: str, entry: dict[str, object]) -> None:
        try:
            about = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(about.st_mode) or entry.get("opaque") is True:
                _remove(parent, name)
                raise FileNotFoundError
        except FileNotFoundError:
            os.mkdir(name, 0o700, dir_fd=parent)
        _settle(f"/proc/self/fd/{parent}/{name}", entry)

    def close(self) -> None:
        self._root.close()


def _parts(path: str) -> list[str]:
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        _refuse(path)
    return parts


def _take_file(parent: int, name: str, entry: dict[str, object], reader: _Reader) -> None:
    """Into the file that is there, if one is: who has it mapped or open already sees the same one."""
    size = _number(entry, "size")
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    parts = _parts_of(entry, size)
    if parts is None:
        parts = [(0, size)]
        # Where it is there O_CREAT is not said: of another's file in a sticky directory it would be refused, even to
        # root (proc_sys_fs(5), protected_regular).
        flags |= 0 if _is_to_stay(parent, name) else os.O_CREAT | os.O_EXCL
    with OwnedFd(os.open(name, flags, 0o600, dir_fd=parent)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            _refuse(name)
        os.ftruncate(file.fileno(), size)
        for start, length in parts:
            at = start
            while left := start + length - at:
                data = reader.some(min(left, _CHUNK))
                os.pwrite(file.fileno(), data, at)
                at += len(data)
        _settle(f"/proc/self/fd/{file.fileno()}", entry)


def _is_to_stay(parent: int, name: str) -> bool:
    """Whether a file is there that can be written to; anything else is gone then."""
    try:
        about = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if stat.S_ISREG(about.st_mode) and about.st_nlink == 1:
        return True
    _remove(parent, name)
    return False


def _parts_of(entry: dict[str, object], size: int) -> list[tuple[int, int]] | None:
    """What comes of it, start and length, in their order; None for all of it."""
    told = entry.get("parts")
    if told is None:
        return None
    found: list[tuple[int, int]] = []
    end = 0
    for each in told if isinstance(told, list) else _refuse("parts"):
        match each:
            case [int(start), int(length)] if end <= start and 0 < length <= size - start:
                found.append((start, length))
                end = start + length
            case _:
                _refuse("parts")
    return found


def _settle(place: str, entry: dict[str, object], *, is_link: bool = False) -> None:
    """Owner, mode, attributes and time, in the order in which none of them takes another away."""
    follow = not is_link
    os.chown(place, _number(entry, "uid"), _number(entry, "gid"), follow_symlinks=follow)
    if not is_link:
        os.chmod(place, _number(entry, "mode") & 0o7777)
    attributes = entry.get("attributes", {})
    for name, value in attributes.items() if isinstance(attributes, dict) else ():
        if isinstance(name, str) and isinstance(value, str) and not name.startswith(_OVERLAY):
            os.setxattr(place, name, bytes.fromhex(value), follow_symlinks=follow)
    os.utime(place, ns=(_number(entry, "mtime"),) * 2, follow_symlinks=follow)


def _remove(parent: int, name: str) -> None:
    try:
        about = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(about.st_mode):
        shutil.rmtree(name, dir_fd=parent)
    else:
        os.unlink(name, dir_fd=parent)


class _Reader:
    """Entries and contents out of a stream."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream

    def some(self, n_bytes: int) -> bytes:
        data = self._stream.read(n_bytes)
        if not data:
            raise MigrationError("the source has broken off in the middle of a file")
        return data

    def _exactly(self, n_bytes: int, data: bytes = b"") -> bytes:
        while len(data) < n_bytes:
            data += self.some(n_bytes - len(data))
        return data

    def entry(self) -> dict[str, object] | None:
        """The next; None at the end."""
        first = self._stream.read(_HEAD.size)
        if not first:
            return None
        (length,) = _HEAD.unpack(self._exactly(_HEAD.size, first))
        if length > _MAX_ENTRY:
            _refuse("an entry")
        try:
            found = json.loads(self._exactly(length))
        except (ValueError, RecursionError):
            _refuse("an entry")
        if not isinstance(found, dict):
            _refuse("an entry")
        return found


def _text(entry: dict[str, object], key: str) -> str:
    found = entry.get(key)
    if not isinstance(found, str) or not found or "\0" in found:
        _refuse(key)
    return found


def _number(entry: dict[str, object], key: str) -> int:
    found = entry.get(key)
    if type(found) is not int or not -(1 << 62) < found < 1 << 62:
        _refuse(key)
    return found


def _refuse(what: str) -> NoReturn:
    raise MigrationError(f"what the source says of files makes no sense: {what[:200]}")
