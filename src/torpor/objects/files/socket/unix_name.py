"""Names of unix sockets: in a file system, abstract, or none.

Kernel view
    The table of sock_diag(7) has the name as it was bound, with its final NUL where it is a path.  SIOCUNIXFILE opens
    the socket's file (O_PATH): its path now, owner and mode.
Image
    ``name``, ``name_dir`` for a relative path, ``file_perms``, ``deleted``.
Restore
    bind(2) by the name as it was, since getsockname(2) tells it, in a thread of its own that has its own root and
    working directory (unshare(CLONE_FS)).  A deleted name is bound below a directory of ours, out of everybody's way.
Limits
    A socket file that was renamed comes back under the name that was bound.
"""

from __future__ import annotations

import _socket as socket
import errno
import fcntl
import os
import stat
from collections.abc import Callable

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.records import dataclass, field
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel.arch import nr
from torpor.kernel.idmap import IdMaps
from torpor.kernel.sockets import Socket
from torpor.kernel.syscall import syscall
from torpor.objects.files.model import FileDump, FileRestore, OpenFile, mount_of
from torpor.objects.files.paths import roots_of

_SIOCUNIXFILE = 0x89E0
_DELETED = " (deleted)"
_CLONE_FS = 0x200
_MAX_NAME = 108


def dump(file: OpenFile, sk: m.unix_sk_entry, name: bytes, session: FileDump) -> None:
    """Fill in the name, and what its file is like."""
    sk.name = name
    if not name or name.startswith(b"\0"):
        return
    try:
        opened = fcntl.ioctl(file.fd, _SIOCUNIXFILE)
    except OSError as error:
        raise file.refuse(f"the file of its name {_text(name)} cannot be found: {error.strerror}") from error
    try:
        info = os.fstat(opened)
        path = os.readlink(f"/proc/self/fd/{opened}")
        if roots_of(session).has_own(file.process.pid):
            sk.mnt_id = mount_of(opened)
    finally:
        os.close(opened)
    sk.file_perms.mode = info.st_mode
    sk.file_perms.uid, sk.file_perms.gid = file.process.idmaps.inside(info.st_uid, info.st_gid)
    if path.endswith(_DELETED):
        path = path.removesuffix(_DELETED)
        sk.deleted = True
    if not name.startswith(b"/"):
        ending = os.path.normpath(os.fsdecode(name.rstrip(b"\0")))
        sk.name_dir = path.removesuffix(ending).rstrip("/") or "/" if path.endswith("/" + ending) else "/"


@dataclass(frozen=True, slots=True)
class Name:
    """A socket's name as the image has it.  ``text`` is empty for a socket without one."""

    text: bytes
    directory: str
    is_deleted: bool
    mode: int
    uid: int
    gid: int
    #: The mount that its file is on; -1 where there is one mount namespace only.
    mount: int = -1

    @property
    def is_path(self) -> bool:
        """Whether it is in a file system."""
        return bool(self.text) and not self.text.startswith(b"\0")

    @property
    def path(self) -> str:
        """From the root of its mount namespace."""
        return os.path.join(self.directory, os.fsdecode(self.text))

    def __str__(self) -> str:
        return _text(self.text)


def name_of(sk: m.unix_sk_entry, idmaps: IdMaps) -> Name:
    """The name in an image, its owner in ids of ours; ImageError for one that cannot be."""
    text = bytes(sk.name)
    if text and not text.startswith(b"\0"):
        text = text.rstrip(b"\0")
    if len(text) > _MAX_NAME or (text and not text.startswith(b"\0") and b"\0" in text):
        raise ImageError(f"files.img: {text!r} is no name of a unix socket")
    perms = sk.file_perms
    mode = perms.mode if sk.HasField("file_perms") else 0
    return Name(text, sk.name_dir or "/", sk.deleted, mode, *idmaps.outside(perms.uid, perms.gid), sk.mnt_id)


def _text(name: bytes) -> str:
    return os.fsdecode(b"@" + name[1:] if name.startswith(b"\0") else name.rstrip(b"\0"))


@dataclass(slots=True)
class _Ghosts:
    """A directory in which deleted names are bound; a subdirectory for each, so that equal names do not meet."""

    path: str
    names: list[tuple[str, Name]] = field(default_factory=list)


class Namer:
    """Binds and connects by names during a restore."""

    def __init__(self, session: FileRestore) -> None:
        self._session = session
        self._ghosts: _Ghosts | None = None
        self._ghost_of: dict[int, str] = {}
        #: Paths that are taken, each with the root that it starts from.
        self._bound: set[tuple[int, str]] = set()

    def bind(self, ident: int, connection: Socket, name: Name) -> None:
        """Give the socket *ident* its name.  RestoreError where another process has it."""
        if not name.is_path:
            _bind(connection, name)
            return
        root_fd, path = self._session.place_of(name.mount, name.path)
        if name.is_deleted or path != name.path or (root_fd, path) in self._bound:
            # Nor is a name to be seen that lies under another mount.
            self._bind_ghost(ident, connection, name)
        else:
            self._bound.add((root_fd, path))
            self._within(root_fd, name.directory, lambda: _bind_file(connection, name))

    def bind_apart(self, ident: int, connection: Socket, name: Name) -> None:
        """Give it the name without taking a path in the real file system."""
        if name.is_path:
            self._bind_ghost(ident, connection, name)
        else:
            _bind(connection, name)

    def connect(self, connection: Socket, ident: int, name: Name) -> None:
        """Connect to the socket *ident* (bound here, or one of another process) by its name."""
        if not name.is_path:
            connection.connect(name.text)
        elif ident in self._ghost_of:
            root = os.open(self._ghost_of[ident], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._within(root, "/", lambda: connection.connect(name.text))
            finally:
                os.close(root)
        else:
            root_fd = self._session.place_of(name.mount, name.path)[0]
            self._within(root_fd, name.directory, lambda: connection.connect(name.text))

    def close(self) -> None:
        """Remove what deleted names have left."""
        if self._ghosts is None:
            return
        for root, name in self._ghosts.names:
            path = os.path.join(root, os.fsdecode(name.text).lstrip("/"))
            _ignore_missing(os.unlink, path)
            while len(path) > len(self._ghosts.path):
                path = os.path.dirname(path)
                _ignore_missing(os.rmdir, path)
        _ignore_missing(os.rmdir, self._ghosts.path)
        self._ghosts = None

    def _bind_ghost(self, ident: int, connection: Socket, name: Name) -> None:
        if ".." in os.fsdecode(name.text).split("/"):
            raise RestoreError(f"unix socket {name}: a deleted name with .. in it cannot be bound again")
        if self._ghosts is None:
            self._ghosts = _Ghosts(f"/tmp/.torpor-{os.getpid()}")
            os.mkdir(self._ghosts.path, 0o700)
        root = os.path.join(self._ghosts.path, str(len(self._ghosts.names)))
        self._ghosts.names.append((root, name))
        os.makedirs(os.path.dirname(os.path.join(root, os.fsdecode(name.text).lstrip("/"))))
        root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._within(root_fd, "/", lambda: _bind_file(connection, name))
        finally:
            os.close(root_fd)
        self._ghost_of[ident] = root

    def _within(self, root_fd: int, directory: str, action: Callable[[], None]) -> None:
        """Do *action* in a thread that has that root and working directory."""
        import threading

        failures: list[BaseException] = []

        def run() -> None:
            try:
                syscall("unshare", nr.unshare, _CLONE_FS)
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


def _ignore_missing(action: Callable[[str], None], path: str) -> None:
    try:
        action(path)
    except OSError as error:
        log.debug(f"{path}: {error.strerror}")


def _bind(connection: Socket, name: Name) -> None:
    try:
        connection.bind(name.text)
    except OSError as error:
        hint = "another process has it; end that first" if error.errno == errno.EADDRINUSE else None
        raise RestoreError(f"unix socket {name} cannot be bound: {error.strerror}", hint=hint) from error


def _bind_file(connection: Socket, name: Name) -> None:
    _remove_stale(name)
    before = os.umask(0)
    try:
        # The mode of the socket's inode is what the file gets, less the umask.
        if name.mode:
            os.fchmod(connection.fileno(), stat.S_IMODE(name.mode))
        _bind(connection, name)
    finally:
        os.umask(before)
    if name.mode:
        os.chown(name.text, name.uid, name.gid, follow_symlinks=False)
        os.chmod(name.text, stat.S_IMODE(name.mode))


def _remove_stale(name: Name) -> None:
    """Unlink a socket file that nobody is bound to; RestoreError for one that lives.  Others are left to bind(2)."""
    try:
        info = os.lstat(name.text)
    except OSError:
        return
    if not stat.S_ISSOCK(info.st_mode):
        return
    if _is_alive(name.text):
        raise RestoreError(
            f"unix socket {name} is in use",
            hint="end the process that has it; it may be in another network namespace (a container's)",
        )
    os.unlink(name.text)


def _is_alive(path: bytes) -> bool:
    """Whether a socket is bound to that file, in whichever network namespace: none in another is in our tables.

    unix(7): a file that nobody is bound to refuses the connection.  A socket of another type says so (EPROTOTYPE), and
    one of datagrams does not notice that somebody has been connected to it.
    """
    with Socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0) as probe:
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError as error:
            log.debug(f"{os.fsdecode(path)}: {error.strerror}")
    return True


__all__ = ["Name", "Namer", "dump", "name_of"]
