"""The files of a tmpfs as a tar archive: written as GNU tar reads it, read as GNU tar writes it.

Kernel view
    SEEK_DATA and SEEK_HOLE; lstat, listxattr; FS_IOC_GETFLAGS.  Files are opened by O_NOATIME, and nothing but files.
Image
    Headers of ustar with pax records: times to the nanosecond, names and attributes of any bytes (SCHILY.xattr.*),
    inode flags (SCHILY.fflags), sparse files in the form 1.0 (GNU.sparse.*).  A socket has no form in tar: that it is
    there is said by a record of its directory (TORPOR.socket.NAME in hex), which GNU tar passes over with a word.
Restore
    By descriptors of directories, so that the depth of a path has no limit.  Directories get their attributes and times
    last, the innermost first.
Limits
    The time of the last change (ctime) and that of birth are new.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress

from torpor.base import log
from torpor.base.errors import TRUST_IT, NotPermittedError, RestoreError
from torpor.base.typed import TYPE_CHECKING, BinaryIO
from torpor.images.errors import ImageError
from torpor.kernel import lsm
from torpor.kernel.idmap import IdMaps
from torpor.kernel.uapi.fs import (
    FS_APPEND_FL,
    FS_IMMUTABLE_FL,
    FS_IOC_GETFLAGS,
    FS_IOC_SETFLAGS,
    FS_NOATIME_FL,
    FS_NODUMP_FL,
)
from torpor.objects.files import paths

if TYPE_CHECKING:
    import tarfile

    from torpor.objects.ns.mnt.tar_source import Archive, Source

_XATTR = "SCHILY.xattr."
_LABEL = _XATTR + lsm.XATTR
_FLAGS = "SCHILY.fflags"
_SOCKET = "TORPOR.socket."
_FILE_CAPABILITIES = "security.capability"
#: /dev/tty, /dev/ptmx: whoever opens them gets what is their own.
_EVERYBODY_S = (os.makedev(5, 0), os.makedev(5, 2))
_BLOCK = 512
_CHUNK = 1 << 20
_NSEC = 10**9
#: No file is larger, and no time later.
_MOST = (1 << 63) - 1
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Inode flags that a tmpfs has and that chattr(1) sets, by the names that libarchive gives them.
_INODE_FLAGS = {
    "simmutable": FS_IMMUTABLE_FL, "sappnd": FS_APPEND_FL, "nodump": FS_NODUMP_FL, "noatime": FS_NOATIME_FL
}  # fmt: skip
_TYPES = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}


class Writer:
    """Writes an archive into a stream."""

    def __init__(self, stream: BinaryIO, idmaps: IdMaps) -> None:
        self._stream = stream
        self._idmaps = idmaps
        self._seen: dict[tuple[int, int], bytes] = {}

    def close(self) -> None:
        """The archive's end; the stream stays open."""
        self._stream.write(bytes(2 * _BLOCK))

    def add(self, fd: int, name: str) -> None:
        """What *fd* (perhaps of O_PATH) has open, and all below it, as *name*."""
        info = os.fstat(fd)
        if stat.S_ISDIR(info.st_mode):
            self._add_tree(os.open(".", _DIRECTORY, dir_fd=fd), os.fsencode(name).rstrip(b"/") or b".")
        else:
            self._add_one(fd, b"", os.fsencode(name), info)

    def _add_tree(self, fd: int, name: bytes) -> None:
        """Without recursion and by one descriptor, for the depth is not ours to say; *fd* is the callee's."""
        pending = [(name, self._add_directory(fd, name))]
        try:
            while pending:
                path, children = pending[-1]
                child = next(children, None)
                if child is None:
                    pending.pop()
                    if pending:
                        fd = _moved(fd, b"..")
                    continue
                try:
                    info = os.stat(child, dir_fd=fd, follow_symlinks=False)
                    if not stat.S_ISDIR(info.st_mode):
                        self._add_one(fd, child, path + b"/" + child, info)
                        continue
                    fd = _moved(fd, child)
                except FileNotFoundError:
                    continue  # nothing of the tree runs, but somebody else may
                pending.append((path + b"/" + child, self._add_directory(fd, path + b"/" + child)))
        finally:
            os.close(fd)

    def _add_directory(self, fd: int, name: bytes) -> Iterator[bytes]:
        """The directory itself; its children but for the sockets, which it tells itself."""
        info = os.fstat(fd)
        records = self._records(info, f"/proc/self/fd/{fd}", follow=True)
        records += _inode_flags(fd)
        children = []
        for child in sorted(os.fsencode(each) for each in os.listdir(fd)):
            with suppress(FileNotFoundError):
                inside = os.stat(child, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISSOCK(inside.st_mode):
                    records.append(self._socket(fd, child, inside))
                else:
                    children.append(child)
        self._header(name + b"/", info, b"5", records)
        return iter(children)

    def _socket(self, fd: int, name: bytes, info: os.stat_result) -> tuple[str, bytes]:
        user, group = self._idmaps.inside(info.st_uid, info.st_gid)
        told = f"{info.st_mode & 0o7777:o} {user} {group} {info.st_mtime_ns} {info.st_atime_ns}"
        return _SOCKET + name.hex(), told.encode()

    def _add_one(self, parent: int, child: bytes, name: bytes, info: os.stat_result) -> None:
        """The file *child* of a directory, or what *parent* itself has open if there is no child."""
        kind = _TYPES.get(stat.S_IFMT(info.st_mode))
        if kind is None:
            return
        path = f"/proc/self/fd/{parent}" + (f"/{os.fsdecode(child)}" if child else "")
        place = (info.st_dev, info.st_ino)
        if info.st_nlink > 1 and place in self._seen:
            self._header(name, info, b"1", [("mtime", _time(info.st_mtime_ns))], link=self._seen[place])
            return
        self._seen[place] = name
        records = self._records(info, path, follow=not child)
        if kind == b"0":
            self._add_file(path, name, info, records)
            return
        link = os.fsencode(os.readlink(child, dir_fd=parent)) if kind == b"2" else b""
        self._header(name, info, kind, records, link=link)

    def _records(self, info: os.stat_result, path: str, *, follow: bool) -> list[tuple[str, bytes]]:
        records = [("mtime", _time(info.st_mtime_ns)), ("atime", _time(info.st_atime_ns))]
        for key in os.listxattr(path, follow_symlinks=follow):
            with suppress(OSError):  # taken away meanwhile, or not ours to see
                records.append((_encoded(key), os.getxattr(path, key, follow_symlinks=follow)))
        return records

    def _add_file(self, path: str, name: bytes, info: os.stat_result, records: list[tuple[str, bytes]]) -> None:
        fd = _open_quietly(path)
        try:
            records += _inode_flags(fd)
            extents = list(_iter_data(fd, info.st_size))
            if extents == [(0, info.st_size)] or not info.st_size:
                self._header(name, info, b"0", records, size=info.st_size)
                self._copy(fd, 0, info.st_size)
                self._pad(info.st_size)
                return
            table = [*extents, (info.st_size, 0)]
            head = b"%d\n" % len(table) + b"".join(b"%d\n%d\n" % each for each in table)
            head += bytes(-len(head) % _BLOCK)
            records += [("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.name", name)]
            records.append(("GNU.sparse.realsize", b"%d" % info.st_size))
            size = len(head) + sum(length for _, length in extents)
            self._header(b"GNUSparseFile.0/" + name[-64:].rpartition(b"/")[2], info, b"0", records, size=size)
            self._stream.write(head)
            for at, length in extents:
                self._copy(fd, at, length)
            self._pad(size)
        finally:
            os.close(fd)

    def _copy(self, fd: int, at: int, length: int) -> None:
        """Exactly so many bytes, zeroes where the file has become shorter."""
        while length:
            data = os.pread(fd, min(length, _CHUNK), at)
            if not data:
                data = bytes(min(length, _CHUNK))
            self._stream.write(data)
            at, length = at + len(data), length - len(data)

    def _pad(self, size: int) -> None:
        self._stream.write(bytes(-size % _BLOCK))

    def _header(
        self,
        name: bytes,
        info: os.stat_result,
        kind: bytes,
        records: list[tuple[str, bytes]],
        *,
        size: int = 0,
        link: bytes = b"",
    ) -> None:
        user, group = self._idmaps.inside(info.st_uid, info.st_gid)
        numbers = {"uid": (user, 8), "gid": (group, 8), "size": (size, 12), "mtime": (info.st_mtime_ns // _NSEC, 12)}
        for key, (value, width) in numbers.items():
            if not 0 <= value < 8 ** (width - 1):
                numbers[key] = (0, width)
                if key != "mtime":
                    records = [*records, (key, b"%d" % value)]
        for key, text in (("path", name), ("linkpath", link)):
            if len(text) > 100 or not text.isascii():
                records = [*records, (key, text)]
        if records:
            data = b"".join(_record(key, value) for key, value in records)
            self._stream.write(_block(b"PaxHeaders/" + name[-64:], 0o644, [0, 0, len(data), 0], b"x", b"", 0))
            self._stream.write(data + bytes(-len(data) % _BLOCK))
        mode = info.st_mode & 0o7777
        device = info.st_rdev if kind in (b"3", b"4") else 0
        self._stream.write(_block(name, mode, [value for value, _ in numbers.values()], kind, link, device))


def _moved(fd: int, name: bytes) -> int:
    """The directory *name* in the directory *fd*, which is closed."""
    found = os.open(name, _DIRECTORY, dir_fd=fd)
    os.close(fd)
    return found


def _block(name: bytes, mode: int, numbers: list[int], kind: bytes, link: bytes, device: int) -> bytes:
    """A header of ustar: names cut off where they are too long, numbers already fit."""
    user, group, size, mtime = numbers
    block = bytearray(
        struct.pack(
            "100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x",
            name[:100], b"%07o" % mode, b"%07o" % user, b"%07o" % group, b"%011o" % size, b"%011o" % mtime,
            b" " * 8, kind, link[:100], b"ustar", b"00", b"", b"",
            b"%07o" % (os.major(device) & 0o7777777), b"%07o" % (os.minor(device) & 0o7777777), b"",
        )
    )  # fmt: skip
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _encoded(attribute: str) -> str:
    """The record's keyword, in which GNU tar allows no "="."""
    return _XATTR + attribute.replace("%", "%25").replace("=", "%3D")


def _decoded(keyword: str) -> str:
    return keyword[len(_XATTR) :].replace("%3D", "=").replace("%25", "%")


def _record(key: str, value: bytes) -> bytes:
    """A pax record, which begins with its own length."""
    rest = b" " + os.fsencode(key) + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def _time(nanoseconds: int) -> bytes:
    sign, (seconds, rest) = "-" if nanoseconds < 0 else "", divmod(abs(nanoseconds), _NSEC)
    return f"{sign}{seconds}.{rest:09}".encode()


def _open_quietly(path: str) -> int:
    """A regular file, without changing the time at which it was read last."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOATIME | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _inode_flags(fd: int) -> list[tuple[str, bytes]]:
    """A record of those that are set, if any is."""
    try:
        (flags,) = struct.unpack("I", fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(4)))
    except OSError:
        return []  # before 6.6
    names = [name for name, bit in _INODE_FLAGS.items() if flags & bit]
    return [(_FLAGS, ",".join(names).encode())] if names else []


def _iter_data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of what is not a hole."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        if start < at:
            yield start, at - start


# -- reading --------------------------------------------------------------------------------------------------------


def _hint(error: OSError) -> str | None:
    return "the archive holds more than its size allows" if error.errno == errno.ENOSPC else None


class Reader:
    """Unpacks an archive into the current directory of the calling thread, which is its root as well.

    Directories are finished when everything below them is there.  Set-uid files and devices only if they *may be*.
    """

    def __init__(
        self,
        archive: Archive,
        idmaps: IdMaps,
        *,
        may_be_special: bool = True,
        new_labels: Mapping[str, str] | None = None,
    ) -> None:
        self._archive = archive
        self._new_labels = new_labels
        self._may_be_special = may_be_special
        self._idmaps = idmaps
        self._later: list[tarfile.TarInfo] = []
        self._flags: list[tuple[str, str]] = []

    def run(self) -> None:
        """ImageError for what makes no sense; RestoreError for what cannot be made here."""
        at = "its contents"
        try:
            for member in self._archive:
                at = member.name
                self._add(member)
            for member in reversed(self._later):
                at = member.name
                with _Within(at + "/.") as (parent, _):
                    self._sockets(parent, member)
                    self._finish(parent, ".", member)
            for at, flags in self._flags:
                _set_inode_flags(at, flags)
        except OSError as error:
            raise RestoreError(f"{at} cannot be made in a tmpfs: {error.strerror}", hint=_hint(error)) from error

    def _add(self, member: tarfile.TarInfo) -> None:
        if remark := _nonsense(member):
            raise ImageError(f"the contents of a tmpfs are damaged, at {member.name!r}: {remark}")
        if not self._may_be_special:
            _check_ordinary(member)
        with _Within(member.name) as (parent, name):
            if member.isdir():
                if name not in ("", ".", "..") and not _is_directory(parent, name):
                    os.mkdir(name, 0o700, dir_fd=parent)
                self._later.append(member)
                return
            if member.islnk():
                with _Within(member.linkname) as (other, target):
                    os.link(target, name, src_dir_fd=other, dst_dir_fd=parent, follow_symlinks=False)
                return
            if member.issym():
                os.symlink(member.linkname, name, dir_fd=parent)
            elif member.isfifo():
                os.mkfifo(name, 0o600, dir_fd=parent)
            elif member.ischr() or member.isblk():
                kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
                os.mknod(name, kind | 0o600, os.makedev(member.devmajor, member.devminor), dir_fd=parent)
            elif member.isreg():
                self._fill(parent, name, member)
            else:
                raise ImageError(f"{member.name!r} is of a kind that a tmpfs has not ({member.type!r})")
            self._finish(parent, name, member)

    def _fill(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
        source = self._archive.source
        try:
            source.seek(member.offset_data)
            for at, length in getattr(member, "sparse", None) or [(0, member.size)]:
                _copy_in(source, fd, at, length, member.name)
            os.ftruncate(fd, member.size)
        finally:
            os.close(fd)

    def _finish(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        """Owner, mode, attributes and times; what is no more than a symlink's stays one."""
        os.chown(name, *self._idmaps.outside(member.uid, member.gid), dir_fd=parent, follow_symlinks=False)
        if not member.issym():
            os.chmod(name, member.mode & 0o7777, dir_fd=parent)
        for key, value in member.pax_headers.items():
            if key == _LABEL:
                self._label(parent, name, value, symlink=member.issym())
            elif key.startswith(_XATTR):
                _set_attribute(parent, name, _decoded(key), os.fsencode(value), symlink=member.issym())
            elif key == _FLAGS:
                self._flags.append((member.name, value))
        mtime, atime = _times(member)
        os.utime(name, ns=(atime, mtime), dir_fd=parent, follow_symlinks=False)

    def _label(self, parent: int, name: str, label: str, *, symlink: bool) -> None:
        """SELinux's, where it is active, and files have one of their own and not all that of their mount."""
        if self._new_labels is None or lsm.active() != lsm.SELINUX:
            return
        new = lsm.relabel_bytes(os.fsencode(label), self._new_labels)
        try:
            if _attribute(parent, name, lsm.XATTR, symlink=symlink) != new:
                _set_attribute(parent, name, lsm.XATTR, new, symlink=symlink)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise

    def _sockets(self, parent: int, member: tarfile.TarInfo) -> None:
        """Those that the record of their directory names."""
        for key, value in member.pax_headers.items():
            if not key.startswith(_SOCKET):
                continue
            try:
                name = os.fsdecode(bytes.fromhex(key[len(_SOCKET) :]))
                mode, *numbers = value.split()
                user, group, mtime, atime = map(int, numbers)
                os.mknod(name, stat.S_IFSOCK | 0o600, dir_fd=parent)
                os.chown(name, *self._idmaps.outside(user, group), dir_fd=parent, follow_symlinks=False)
                os.chmod(name, int(mode, 8) & 0o7777, dir_fd=parent)
                os.utime(name, ns=(atime, mtime), dir_fd=parent, follow_symlinks=False)
            except (ValueError, OverflowError) as error:
                raise ImageError(f"a socket in {member.name!r} makes no sense: {error}") from error


def _nonsense(member: tarfile.TarInfo) -> str:
    """What no file has, of all that *member* says and that is asked of the kernel; empty: nothing."""
    names = [member.name, member.linkname]
    values: list[str] = []
    for key, value in member.pax_headers.items():
        if key.startswith(_XATTR):
            names.append(_decoded(key))
            values.append(value)
    try:
        if any(b"\0" in os.fsencode(name) for name in names):
            return "a name with a zero byte"
        for value in values:
            os.fsencode(value)
    except UnicodeEncodeError as error:
        return f"a name or an attribute that is no text: {error.reason}"
    pieces = [piece for piece in getattr(member, "sparse", None) or [(0, 0)] if sum(piece) > _MOST]
    if pieces or not 0 <= member.size <= _MOST:
        return f"a size of {member.size}, or a piece behind any file's end"
    if (member.ischr() or member.isblk()) and (member.devmajor | member.devminor) >> 32:
        return f"device {member.devmajor}:{member.devminor}"
    try:
        mtime, atime = _times(member)
    except (ValueError, OverflowError) as error:
        return f"a time that is none: {error}"
    return "" if max(abs(mtime), abs(atime)) < _MOST * _NSEC else "a time that no calendar has"


def _check_ordinary(member: tarfile.TarInfo) -> None:
    """NotPermittedError for what gives rights to whoever finds it."""
    what = ""
    if member.ischr() or member.isblk():
        mode, number = stat.S_IFCHR if member.ischr() else stat.S_IFBLK, os.makedev(member.devmajor, member.devminor)
        if not (paths.is_plain_number(mode, number) or (member.ischr() and number in _EVERYBODY_S)):
            what = paths.describe_device(mode, number)
    elif not member.isdir() and paths.gives_rights(member.mode):
        what = f"a file of mode {member.mode & 0o7777:o}"
    elif _XATTR + _FILE_CAPABILITIES in member.pax_headers:
        what = "a file with capabilities"
    if what:
        raise NotPermittedError(f"the contents of a tmpfs: {member.name}: {what} is asked for", hint=TRUST_IT)


class _Within:
    """The directory of a path, made where it is missing, as a descriptor, and the last part of the path."""

    def __init__(self, path: str) -> None:
        self._parts = [part for part in path.split("/") if part not in ("", ".")]
        self._is_directory = path.endswith("/.")

    def __enter__(self) -> tuple[int, str]:
        fd = os.open(".", _DIRECTORY)
        above = self._parts if self._is_directory else self._parts[:-1]
        try:
            for part in above:
                if not _exists(fd, part):
                    os.mkdir(part, 0o755, dir_fd=fd)
                fd = _moved(fd, os.fsencode(part))
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return fd, "." if self._is_directory or not self._parts else self._parts[-1]

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        os.close(self._fd)


def _exists(parent: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_directory(parent: int, name: str) -> bool:
    return _exists(parent, name) and stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def _copy_in(source: Source, fd: int, at: int, length: int, name: str) -> None:
    read = source.contents
    if at < 0 or length < 0:
        raise ImageError(f"{name!r} has a piece of {length} bytes at {at}")
    while length:
        data = read(min(length, _CHUNK))
        if not data:
            raise ImageError(f"{name!r} is cut off")
        written = 0
        while written < len(data):
            written += os.pwrite(fd, data[written:], at + written)
        at, length = at + len(data), length - len(data)


def _set_attribute(parent: int, name: str, key: str, value: bytes, *, symlink: bool) -> None:
    """There is no call by a directory and a name: the thread goes there, which has directories of its own."""
    os.fchdir(parent)
    try:
        os.setxattr(name, key, value, follow_symlinks=not symlink)
    finally:
        os.chdir("/")


def _attribute(parent: int, name: str, key: str, *, symlink: bool) -> bytes:
    os.fchdir(parent)
    try:
        return os.getxattr(name, key, follow_symlinks=not symlink)
    finally:
        os.chdir("/")


def _times(member: tarfile.TarInfo) -> tuple[int, int]:
    """When it was written and read last.  ValueError and OverflowError where it says no number that ends."""
    mtime = _nanoseconds(member.pax_headers.get("mtime", ""), member.mtime)
    return mtime, _nanoseconds(member.pax_headers.get("atime", ""), mtime / _NSEC)


def _nanoseconds(text: str, seconds: float) -> int:
    """A time as a pax record has it, or else in seconds."""
    sign = -1 if text.startswith("-") else 1
    whole, _, fraction = text.lstrip("-").partition(".")
    if whole.isdecimal() and (not fraction or fraction.isdecimal()):
        return sign * (int(whole) * _NSEC + int((fraction + "0" * 9)[:9]))
    return int(seconds) * _NSEC


def _set_inode_flags(name: str, flags: str) -> None:
    bits = sum(bit for known, bit in _INODE_FLAGS.items() if known in flags.split(","))
    with _Within(name) as (parent, last):
        fd = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        try:
            fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("I", bits))
        except OSError as error:
            log.warn(f"{name} in a tmpfs loses its flags {flags}: {error.strerror}")
        finally:
            os.close(fd)
