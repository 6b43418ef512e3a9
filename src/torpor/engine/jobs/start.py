"""Starting a job: its namespaces, its own /proc, /dev/pts, /dev/shm and /dev/mqueue, its log.

The command itself is the first process of the pid namespace: no init of ours lies between, so what is checkpointed is
what the user started.  Everything else of the file system is the host's, by private copies of its mounts.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from torpor.base.errors import JobError, NotPermittedError
from torpor.base.explain import explain
from torpor.base.fds import OwnedFd
from torpor.engine.jobs import locks, registry, watch
from torpor.engine.jobs.registry import Job
from torpor.kernel import mount as mounts
from torpor.kernel import namespaces as ns
from torpor.kernel.procfs.task import read_fdinfo
from torpor.kernel.uapi.fcntl import AT_FDCWD, O_PATH
from torpor.tracee.detached import spawn

_FRESH = (
    ("/proc", "proc", mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC, None),
    ("/dev/pts", "devpts", mounts.MS_NOSUID | mounts.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"),
    ("/dev/shm", "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, "mode=1777"),
    ("/dev/mqueue", "mqueue", mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC, None),
)
_EINVAL = 22


def start(
    command: Sequence[str],
    name: str,
    *,
    environment: Mapping[str, str] | None = None,
    directory: str | os.PathLike[str] | None = None,
    log: str | os.PathLike[str] | None = None,
) -> Job:
    """Start *command* as the job *name* and return once it runs.

    *directory* is its working directory (ours by default), *log* another file to append its output to.  JobError: the
    name is in use, or the command cannot be run.
    """
    if os.geteuid() != 0:
        raise NotPermittedError("a job needs namespaces of its own, which only root can make", hint="sudo torpor run")
    with locks.held(name, "started"):
        return _start(registry.create(name, tuple(command)), environment, directory, log)


def _start(
    job: Job,
    environment: Mapping[str, str] | None,
    directory: str | os.PathLike[str] | None,
    log: str | os.PathLike[str] | None,
) -> Job:
    where = os.fspath(directory) if directory is not None else os.getcwd()
    log_path = Path(log) if log is not None else job.log
    near, far = socket.socketpair()
    with near, far:
        watcher = _Watcher(job, dict(os.environ if environment is None else environment), where, log_path, far)
        sys.stdout.flush()
        sys.stderr.flush()
        spawn(watcher.run, (far.fileno(),))
        far.close()
        answer = b""
        while part := near.recv(4096):
            answer += part
    word, _, text = answer.decode(errors="replace").partition(" ")
    if word != "pid":
        registry.discard(job)
        raise JobError(f"{job.command[0]} cannot be run as a job: {text or 'its watcher died'}")
    return registry.find(job.name)


class _Watcher:
    """The process that starts the job's first process and waits for its end."""

    def __init__(self, job: Job, environment: dict[str, str], directory: str, log: Path, far: socket.socket) -> None:
        self._job = job
        self._environment = environment
        self._directory = directory
        self._log = log
        self._far = far.fileno()

    def run(self) -> None:
        """Start the job, report it, wait for it, record how it ended."""
        try:
            pid = self._start()
            try:
                job = registry.running(self._job, pid)
                watch.mark(job)
            except BaseException:
                # Nobody would know of it.
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise
        except OSError as error:
            os.write(self._far, f"error {_told(error)}".encode())
            return
        # The first process holds a copy that exec closes; if exec fails it says so there, behind our words.
        os.write(self._far, f"pid {pid}".encode())
        os.close(self._far)
        _, status = os.waitpid(pid, 0)
        registry.ended(job.name, job.pid, job.start_time, status)
        watch.finish(job)

    def _start(self) -> int:
        """Fork the first process; its pid.  OSError when it could not become the command."""
        ns.unshare(ns.CLONE_NEWPID)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            try:
                os.close(self._far)
                self._become()
            except OSError as error:
                os.write(writer, _told(error).encode())
            finally:
                os._exit(127)
        os.close(writer)
        with open(reader, "rb") as stream:
            trouble = stream.read()
        if trouble:
            os.waitpid(pid, 0)
            raise OSError(trouble.decode(errors="replace"))
        return pid

    def _become(self) -> None:
        os.setsid()
        ns.unshare(ns.CLONE_NEWNS | ns.CLONE_NEWUTS | ns.CLONE_NEWIPC)
        socket.sethostname(self._job.name)
        make_mounts()
        # Only now: a file opened before would lie on a mount that the job's namespace does not have.
        log = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for number in (1, 2):
            os.dup2(log, number)
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.chdir(self._directory)
        # Python ignores these, and what is ignored stays so across exec.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        try:
            os.execvpe(self._job.command[0], list(self._job.command), self._environment)
        except OSError as error:
            # Not the last of the places in which it was looked for.
            raise OSError(error.errno, error.strerror) from None


def _told(error: OSError) -> str:
    known = explain(error)
    return str(error) if known is None else known.describe()


def make_mounts() -> None:
    """In a new mount namespace: nothing propagates any more, and what must be the job's own is."""
    _make_root_of_chroot()
    mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
    for point, fstype, flags, data in _FRESH:
        if not os.path.isdir(point):
            continue
        _clear(point)
        mounts.mount(fstype, point, fstype, flags, data)


def _make_root_of_chroot() -> None:
    """In a chroot: make our root directory, with the mounts below it, the root of the whole mount namespace.

    A tree of mounts whose root nobody in it can see could not be dumped.
    """
    with OwnedFd(os.open("/", O_PATH | os.O_CLOEXEC)) as root, OwnedFd(os.open(".", O_PATH | os.O_CLOEXEC)) as here:
        with OwnedFd(os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)) as namespace:
            # Joining the namespace that one is in leads out of a chroot, to the namespace's own root.
            ns.setns(namespace.fileno(), ns.CLONE_NEWNS)
        if _place_of(root.fileno()) == _place_of_path("/"):
            os.fchdir(here.fileno())
            return
        tree = mounts.open_tree(root.fileno(), "", recursive=True)
    mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
    mounts.move_mount(tree, AT_FDCWD, "/")
    os.fchdir(tree)
    os.close(tree)
    try:
        mounts.pivot_root(".", ".")
        mounts.unmount(".", mounts.MNT_DETACH)
    except OSError as error:
        if error.errno != _EINVAL:
            raise
        # The first root of a system that runs from its initramfs cannot be exchanged, only covered.
        mounts.mount(".", "/", None, mounts.MS_MOVE)
    os.chroot(".")


def _place_of(fd: int) -> tuple[int, int, str]:
    """Inode and mount: a directory bound onto itself has the same inode on another mount."""
    info = os.fstat(fd)
    return info.st_dev, info.st_ino, read_fdinfo("self", fd)["mnt_id"]


def _place_of_path(path: str) -> tuple[int, int, str]:
    with OwnedFd(os.open(path, O_PATH | os.O_CLOEXEC)) as fd:
        return _place_of(fd.fileno())


def _clear(point: str) -> None:
    """Unmount everything at *point*, however much lies on top of each other."""
    while True:
        try:
            mounts.unmount(point, mounts.MNT_DETACH)
        except OSError as error:
            if error.errno != _EINVAL:
                raise
            return
