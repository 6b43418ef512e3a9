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
from contextlib import suppress

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.records import dataclass
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel import mount as mounts
from torpor.kernel.arch import nr
from torpor.kernel.idmap import IdMaps
from torpor.kernel.openat2 import open_in_root
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


class _Ghosts:
    """Where deleted names are bound, one directory for each, so that equal names do not meet.

    It is a file system that is mounted nowhere and ends with its last user; where we may not make one, a directory
    whose name nobody can guess.
    """

    def __init__(self) -> None:
        self.path = ""
        #: The directories, and the names bound in them.
        self.names: list[tuple[OwnedFd, str]] = []
        try:
            self.top = OwnedFd(_make_detached())
        except OSError:
            self.path = f"/tmp/.torpor-{os.urandom(12).hex()}"
            os.mkdir(self.path, 0o700)
            self.top = OwnedFd(os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

    def add(self, name: str) -> int:
        """A new directory in which the relative *name* can be bound; it stays ours."""
        place = str(len(self.names))
        os.mkdir(place, 0o700, dir_fd=self.top.fileno())
        fd = OwnedFd(os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.top.fileno()))
        self.names.append((fd, name))
        for above in _parents(name):
            os.mkdir(above, 0o700, dir_fd=fd.fileno())
        return fd.fileno()

    def remove(self) -> None:
        """Take the names away."""
        for number, (fd, name) in enumerate(self.names):
            with fd, suppress(OSError):
                os.unlink(name, dir_fd=fd.fileno())
                for above in reversed(_parents(name)):
                    os.rmdir(above, dir_fd=fd.fileno())
                os.rmdir(str(number), dir_fd=self.top.fileno())
        self.top.close()
        if self.path:
            with suppress(OSError):
                os.rmdir(self.path)


def _make_detached() -> int:
    context = mounts.fsopen("tmpfs")
    try:
        mounts.fsconfig(context, mounts.FSCONFIG_CMD_CREATE)
        return mounts.fsmount(context, 0)
    finally:
        os.close(context)


def _parents(name: str) -> list[str]:
    words = [word for word in name.split("/")[:-1] if word not in ("", ".")]
    return ["/".join(words[: depth + 1]) for depth in range(len(words))]


class Namer:
    """Binds and connects by names during a restore."""

    def __init__(self, session: FileRestore) -> None:
        self._session = session
        self._ghosts: _Ghosts | None = None
        self._ghost_of: dict[int, int] = {}
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
            _check_way(root_fd, name)
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
            self._within(self._ghost_of[ident], "/", lambda: connection.connect(name.text))
        else:
            root_fd = self._session.place_of(name.mount, name.path)[0]
            _check_way(root_fd, name)
            self._within(root_fd, name.directory, lambda: connection.connect(name.text))

    def close(self) -> None:
        """Remove what deleted names have left."""
        if self._ghosts is not None:
            self._ghosts.remove()
            self._ghosts = None

    def _bind_ghost(self, ident: int, connection: Socket, name: Name) -> None:
        if ".." in os.fsdecode(name.text).split("/"):
            raise RestoreError(f"unix socket {name}: a deleted name with .. in it cannot be bound again")
        if self._ghosts is None:
            self._ghosts = _Ghosts()
        root_fd = self._ghost_of[ident] = self._ghosts.add(os.fsdecode(name.text).lstrip("/"))
        self._within(root_fd, "/", lambda: _bind_file(connection, name))

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


def _check_way(root_fd: int, name: Name) -> None:
    """RestoreError for a name to which a link of proc leads, out of the root that it is to be below."""
    try:
        os.close(open_in_root(root_fd, name.path.rpartition("/")[0], os.O_PATH | os.O_DIRECTORY))
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EXDEV):
            raise RestoreError(
                f"unix socket {name}: its name leads elsewhere", hint="the image is not obeyed"
            ) from None
        # Anything else is told by whoever uses the name.


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
