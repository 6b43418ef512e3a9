"""Binding and connecting restored unix sockets by their names.

bind(2) takes the name as it was, since getsockname(2) tells it, in a thread of its own that has its own root and
working directory (unshare(CLONE_FS)).  Where that would not make the file at its place (it was renamed, bound through a
link, below another root), the name is bound in a directory made beside that place for a moment, from which the file is
renamed.  Deleted names are bound in a file system that nobody sees.
"""

from __future__ import annotations

import _socket as socket
import errno
import os
import stat
import struct
from collections.abc import Callable

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.images.errors import ImageError
from torpor.kernel import mount as mounts
from torpor.kernel.arch import nr
from torpor.kernel.openat2 import open_in_root
from torpor.kernel.sockets import Socket
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.fcntl import O_PATH
from torpor.kernel.uapi.fs import RENAME_NOREPLACE
from torpor.kernel.uapi.sched import CLONE_FS
from torpor.objects.files.socket.unix_name import Name
from torpor.objects.session import RestoreContext

_DIRECTORY = O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Namer:
    """Binds and connects by names during a restore."""

    def __init__(self, context: RestoreContext) -> None:
        self._context = context
        self._nowhere: OwnedFd | None = None
        #: The path of that directory, if it had to be made with one.
        self._nowhere_path = ""
        self._n_apart = 0
        #: Sockets that were bound where nobody sees it, and their files.
        self._apart: dict[int, OwnedFd] = {}
        #: Paths that are taken, each with the root that it starts from.
        self._bound: set[tuple[int, str]] = set()

    def bind(self, ident: int, connection: Socket, name: Name) -> None:
        """Give the socket *ident* its name.  RestoreError where another process has it."""
        if not name.is_path:
            _bind(connection, name)
            return
        root_fd, path = self._context.files.place_of(name.mount, name.path)
        if name.is_deleted or path != name.path or (root_fd, path) in self._bound:
            # Bound where nobody sees it: its file was deleted, lies under another mount, or has lost its name to
            # another socket.
            self.bind_apart(ident, connection, name)
            return
        self._bound.add((root_fd, path))
        if name.moved_to:
            _bind_moved(root_fd, connection, name)
        else:
            _check_way(root_fd, name)
            _within(root_fd, name.directory, lambda: _bind_file(connection, name))
        for link in name.links:
            _link(root_fd, path, link)

    def bind_apart(self, ident: int, connection: Socket, name: Name) -> None:
        """Give it the name without taking a path in the real file system."""
        if not name.is_path:
            _bind(connection, name)
            return
        if self._nowhere is None:
            self._nowhere = self._make_nowhere()
        self._n_apart += 1
        top = str(self._n_apart)
        os.mkdir(top, 0o700, dir_fd=self._nowhere.fileno())
        with OwnedFd(os.open(top, _DIRECTORY, dir_fd=self._nowhere.fileno())) as root:
            made = _bind_below(root.fileno(), connection, name)
            self._apart[ident] = OwnedFd(os.open(made.name, O_PATH | os.O_CLOEXEC, dir_fd=root.fileno()))
            os.unlink(made.name, dir_fd=root.fileno())
            made.remove(root.fileno())
        os.rmdir(top, dir_fd=self._nowhere.fileno())

    def connect(self, connection: Socket, ident: int, name: Name) -> None:
        """Connect to the socket *ident* (bound here, or one of another process) by its name."""
        with self.file_of(ident, name) as file:
            connection.connect(address_by(file.fileno()) if name.is_path else name.text)

    def file_of(self, ident: int, name: Name) -> OwnedFd:
        """The file of a path (O_PATH), or of an abstract name something to be closed as well."""
        if not name.is_path:
            return OwnedFd(os.open("/", _DIRECTORY))
        if ident in self._apart:
            return OwnedFd(os.dup(self._apart[ident].fileno()))
        root_fd, path = self._context.files.place_of(name.mount, name.path)
        return OwnedFd(open_in_root(root_fd, path, O_PATH))

    def close(self) -> None:
        """Let go of what deleted names have left."""
        for file in self._apart.values():
            file.close()
        self._apart.clear()
        if self._nowhere is not None:
            self._nowhere.close()
            self._nowhere = None
            if self._nowhere_path:
                os.rmdir(self._nowhere_path)

    def _make_nowhere(self) -> OwnedFd:
        """A directory that nobody else sees: a file system that is mounted nowhere."""
        try:
            with OwnedFd(mounts.fsopen("tmpfs")) as context:
                mounts.fsconfig(context.fileno(), mounts.FSCONFIG_CMD_CREATE)
                return OwnedFd(mounts.fsmount(context.fileno(), 0))
        except OSError as error:
            log.debug(f"no file system for deleted names: {error.strerror}")
        import tempfile

        self._nowhere_path = tempfile.mkdtemp(prefix="torpor-")
        return OwnedFd(os.open(self._nowhere_path, _DIRECTORY | os.O_NOFOLLOW))


def address_by(file: int) -> bytes:
    """A name for connect(2) to the socket of that file, wherever it lies."""
    return b"/proc/self/fd/%d" % file


class _Made:
    """What was bound below a directory: the socket's name there, and directories made for it, the outermost first."""

    def __init__(self, name: str, directories: list[str]) -> None:
        self.name = name
        self._directories = directories

    def remove(self, root: int) -> None:
        """Remove the directories that were made, which hold nothing any more, below *root*.  OSError."""
        for path in reversed(self._directories):
            os.rmdir(path, dir_fd=root)


def _bind_below(root: int, connection: Socket, name: Name) -> _Made:
    """Bind the name as whoever has *root* as root directory would, everything on its way made there."""
    text = os.fsdecode(name.text)
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not parts or parts[-1] == ".." or text.endswith("/"):
        raise ImageError(f"files.img: {name} is no name of a socket's file")
    # A relative name may go up from where it starts.
    start = [] if text.startswith("/") else ["up"] * parts.count("..")
    at, made = list(start), ["/".join(start[: n + 1]) for n in range(len(start))]
    for part in parts[:-1]:
        at = at[:-1] if part == ".." else [*at, part]
        if (path := "/".join(at)) and path not in made:
            made.append(path)
    for path in made:
        os.mkdir(path, 0o700, dir_fd=root)
    _within(root, "/" + "/".join(start), lambda: _bind_file(connection, name))
    return _Made("/".join([*at, parts[-1]]), made)


def _bind_moved(root_fd: int, connection: Socket, name: Name) -> None:
    """Bind the name in a directory beside the place of its file, and rename that."""
    parent, _, last = name.path.rpartition("/")
    with _open_directory(root_fd, parent, name) as directory:
        at = directory.fileno()
        _remove_stale(last, name, at)
        yard = f".torpor-{os.urandom(8).hex()}"
        os.mkdir(yard, 0o700, dir_fd=at)
        try:
            with OwnedFd(os.open(yard, _DIRECTORY | os.O_NOFOLLOW, dir_fd=at)) as root:
                made = _bind_below(root.fileno(), connection, name)
                try:
                    _rename(root.fileno(), made.name, at, last)
                except OSError as error:
                    os.unlink(made.name, dir_fd=root.fileno())
                    raise RestoreError(f"unix socket {name}: {name.path}: {error.strerror}") from error
                finally:
                    made.remove(root.fileno())
        finally:
            os.rmdir(yard, dir_fd=at)


def _check_way(root_fd: int, name: Name) -> None:
    """RestoreError for a name to which a link of proc leads, out of the root that it is to be below."""
    try:
        os.close(open_in_root(root_fd, name.path.rpartition("/")[0], _DIRECTORY))
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EXDEV):
            raise RestoreError(
                f"unix socket {name}: its name leads elsewhere", hint="the image is not obeyed"
            ) from None
        # Any other error comes again, and is told, when the name is used.


def _open_directory(root_fd: int, path: str, name: Name) -> OwnedFd:
    try:
        return OwnedFd(open_in_root(root_fd, path or "/", _DIRECTORY))
    except OSError as error:
        raise RestoreError(
            f"unix socket {name}: {path or '/'}: {error.strerror}",
            hint="the directory must be where it was when the checkpoint was made",
        ) from error


def _rename(source_fd: int, source: str, target_fd: int, target: str) -> None:
    texts = [bytearray(os.fsencode(text) + b"\0") for text in (source, target)]
    syscall(
        "renameat2", nr.renameat2, source_fd, address_of(texts[0]), target_fd, address_of(texts[1]), RENAME_NOREPLACE
    )


def _link(root_fd: int, path: str, link: str) -> None:
    """Give the file another name, in the place of what is left of it from before."""
    parent, _, last = path.rpartition("/")
    at, _, name = link.rpartition("/")
    try:
        with (
            OwnedFd(open_in_root(root_fd, parent or "/", _DIRECTORY)) as source,
            OwnedFd(open_in_root(root_fd, at or "/", _DIRECTORY)) as directory,
        ):
            _remove_stale(name, None, directory.fileno())
            os.link(last, name, src_dir_fd=source.fileno(), dst_dir_fd=directory.fileno(), follow_symlinks=False)
    except OSError as error:
        log.warn(f"unix socket {path}: it cannot get its other name {link}: {error.strerror}")


def _within(root_fd: int, directory: str, action: Callable[[], None]) -> None:
    """Do *action* in a thread that has that root and working directory."""
    import threading

    failures: list[BaseException] = []

    def run() -> None:
        try:
            syscall("unshare", nr.unshare, CLONE_FS)
            os.fchdir(root_fd)
            os.chroot(".")
            os.chdir(directory)
            action()
        except BaseException as error:  # handed to the caller
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _bind(connection: Socket, name: Name) -> None:
    try:
        # Python wants a NUL behind a path, for which the longest have no room.
        address = bytearray(struct.pack("H", socket.AF_UNIX) + name.text)
        syscall("bind", nr.bind, connection.fileno(), address_of(address), len(address))
    except OSError as error:
        hint = "another process has it; end that first" if error.errno == errno.EADDRINUSE else None
        raise RestoreError(f"unix socket {name} cannot be bound: {error.strerror}", hint=hint) from error


def _bind_file(connection: Socket, name: Name) -> None:
    _remove_stale(os.fsdecode(name.text), name, None)
    before = os.umask(0)
    try:
        # The mode of the socket's inode is what the file gets, less the umask.
        if name.mode:
            os.fchmod(connection.fileno(), stat.S_IMODE(name.mode))
        _bind(connection, name)
    finally:
        os.umask(before)
    if name.mode:
        # Whose the directory is may have put a link there by now: nothing that follows one is done by the name.
        os.chown(name.text, name.uid, name.gid, follow_symlinks=False)
    for key, value in name.xattrs:
        try:
            os.setxattr(name.text, key, value, follow_symlinks=False)
        except OSError as error:
            log.warn(f"unix socket {name}: {key}: {error.strerror}")
    if name.times_ns is not None:
        os.utime(name.text, ns=name.times_ns, follow_symlinks=False)


def _remove_stale(path: str, name: Name | None, directory: int | None) -> None:
    """Unlink a socket file that nobody is bound to; RestoreError for one that lives.  Others are left to bind(2)."""
    try:
        info = os.lstat(path) if directory is None else os.stat(path, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return
    if not stat.S_ISSOCK(info.st_mode):
        return
    with OwnedFd(os.open(path, O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)) as file:
        # In a thread with another root there is no /proc.
        is_alive = _is_alive(os.fsencode(path) if directory is None else address_by(file.fileno()))
    if is_alive:
        raise RestoreError(
            f"unix socket {name or path} is in use",
            hint="end the process that has it; it may be in another network namespace (a container's)",
        )
    os.unlink(path, dir_fd=directory)


def _is_alive(path: bytes) -> bool:
    """Whether a socket is bound to that file, in whichever network namespace: none in another is in our tables.

    unix(7): a file that nobody is bound to refuses the connection.  A socket of another type says so (EPROTOTYPE), and
    one of datagrams does not notice that somebody has been connected to it.
    """
    address = bytearray(struct.pack("H", socket.AF_UNIX) + path)
    with Socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0) as probe:
        try:
            syscall("connect", nr.connect, probe.fileno(), address_of(address), len(address))
        except OSError as error:
            log.debug(f"{os.fsdecode(path)}: {error.strerror}")
            return error.errno not in (errno.ECONNREFUSED, errno.ENOENT)
    return True
