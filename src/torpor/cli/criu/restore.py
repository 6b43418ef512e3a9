"""``criu restore``."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress

from torpor.base import log
from torpor.base.errors import TorporError
from torpor.base.fds import OwnedFd, open_output, put_new
from torpor.base.typed import TYPE_CHECKING, Self
from torpor.cli.criu import place
from torpor.cli.criu.options import Options
from torpor.cli.criu.scripts import notifier
from torpor.engine.option_table import of_command_line
from torpor.engine.options import Notify, RestoreOptions, RestorePolicy, policies_of
from torpor.engine.restore.run import restore
from torpor.kernel import signal
from torpor.objects.cgroup.model import CgroupPolicy

if TYPE_CHECKING:
    from torpor.migrate.arrival import Arrival
    from torpor.objects.memory.later import Later
    from torpor.tracee.guardian import Guardian


def main(options: Options) -> int:
    """Restore the tree in ``--images-dir``; the exit code, which without ``-d`` is the restored root's."""
    pid = run(options)
    if options.exec_cmd:
        return become(options.command)
    if options.restore_detached or options.restore_sibling:
        return 0
    return _wait(pid, shell_job=options.shell_job)


def run(
    options: Options,
    client: Notify | None = None,
    orphan_master: Callable[[int], None] | None = None,
    capabilities: int | None = None,
    guarded: Callable[[Guardian], None] | None = None,
) -> int:
    """Restore the tree in ``--images-dir``; the root's pid as we see it.

    *client*: whom to tell what action scripts are told; *orphan_master*: who takes the master of a terminal whose other
    end is in the tree.  *capabilities*: a mask of those that restored tasks may have; None: ours.  *guarded*: who is
    told of the guard over a container.
    """
    notify = notifier(options, client)
    pid_file = _PidFile(options.pidfile, notify) if options.pidfile else None
    notify = pid_file or notify
    told = of_command_line(options)
    arrival = _arrival(options)
    if arrival is not None:
        notify = arrival.notifier(notify)
        told["restore"]["verify"] = False  # sums are for disks
    with (
        pid_file or nullcontext(),
        _later(options) as later,
        arrival or nullcontext(),
        place.old(options, notify) if arrival is None else arrival.images() as images,
    ):
        pid = restore(
            images,
            RestoreOptions(
                notify=notify,
                orphan_master=orphan_master,
                guarded=guarded,
                later=later,
                ahead=arrival.ahead if arrival is not None else None,
                policies=policies_of(told),
                cgroups=CgroupPolicy(**told["cgroups"]),
                policy=RestorePolicy(capabilities=capabilities),
                **told["restore"],
            ),
        )
        if arrival is not None:
            arrival.runs(pid)
    if options.display_stats:
        from torpor.cli.criu.show_stats import show_restore

        try:
            show_restore(options.work_dir)
        except TorporError as error:
            log.warn(f"the restore is complete, but its statistics cannot be shown: {error}")
    return pid


def _arrival(options: Options) -> Arrival | None:
    """The migration that brings what is to be restored, if there is one."""
    from torpor.migrate import meeting

    link = meeting.arrival(options.images_dir)
    if link is None:
        return None
    from torpor.migrate.arrival import Arrival
    from torpor.rpc.peer import load_everything

    load_everything()  # while it still runs elsewhere
    network = next((each for each in options.inherit_fd if each[1].endswith("NetNS")), None)
    number = network[0] if network else -1
    return Arrival(link, options.root or "", tuple(options.external), number, sibling=options.restore_sibling)


def _later(options: Options) -> AbstractContextManager[Later | None]:
    """Who brings pages when the tree runs, if not all are to be there before."""
    if not options.lazy_pages:
        return nullcontext()
    from torpor.migrate.announcing import to_daemon

    return to_daemon()


class _PidFile:
    """Notifier that writes the root's pid before anything runs: one that cannot be written harms nobody then.

    A context manager: where the restore fails after that, the file is gone again, or as it was.  A new one is never
    seen empty; one that is there stays the same file, whose owner, mode and place are the caller's.
    """

    def __init__(self, path: str, then: Notify) -> None:
        self._path, self._then = path, then
        self._fd: OwnedFd | None = None
        self._written = b""
        self._is_new = False
        #: What was in it before; None where that cannot be read.
        self._earlier: bytes | None = None

    def __call__(self, action: str, pid: int) -> None:
        if action == "post-restore":
            try:
                self._write(str(pid).encode())
            except OSError as error:
                raise TorporError(f"pid file {self._path}: {error.strerror}") from None
        elif action == "post-resume":
            self._end()  # the tree runs
        self._then(action, pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._fd is not None:
            try:
                self._take_back(self._fd.fileno())
            except OSError as error:
                log.warn(f"pid file {self._path}: the pid of what was not restored stays in it: {error.strerror}")
        self._end()

    def _end(self) -> None:
        if self._fd is not None:
            self._fd.close()
            self._fd = None

    def _write(self, text: bytes) -> None:
        if (new := put_new(self._path, text, 0o644)) is not None:
            self._is_new, self._earlier, self._written, self._fd = True, b"", text, new
            return
        self._is_new = not os.path.lexists(self._path)
        fd = OwnedFd(open_output(self._path, 0, 0o644))
        if not stat.S_ISREG(os.fstat(fd.fileno()).st_mode):
            with fd:
                os.write(fd.fileno(), text)
            return
        with suppress(OSError):
            self._earlier = _content(fd.fileno())
        self._written, self._fd = text, fd
        _put(fd.fileno(), text)

    def _take_back(self, fd: int) -> None:
        """Unless it is somebody else's by now."""
        if self._earlier is None or _content(fd) not in (self._written, b""):
            return
        if not self._is_new:
            _put(fd, self._earlier)
            return
        with suppress(FileNotFoundError):
            if os.path.samestat(os.lstat(self._path), os.fstat(fd)):
                os.unlink(self._path)


def _content(fd: int) -> bytes:
    """Of the regular file that *fd* has open for writing."""
    with open(f"/proc/self/fd/{fd}", "rb") as stream:
        return stream.read()


def _put(fd: int, content: bytes) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, content, 0)


def become(command: list[str]) -> int:
    """Become *command*, which so is the parent of what was restored."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        log.error(f"--exec-cmd {command[0]}: {error.strerror}")
        return 1


def _pass_on(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(os.getpgid(pid), number)


def _wait(pid: int, *, shell_job: bool) -> int:
    """Until the root has ended; its status as a shell shows it.  The terminal's Ctrl-C is for the tree, not for us."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The shell knows our group only: what becomes of it becomes of the job, and the other way round.
    stands_for_job = shell_job and os.getpgid(pid) != os.getpgrp()
    if stands_for_job:
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, lambda number, _: _pass_on(pid, number))
    while True:
        try:
            gone, status = os.waitpid(-1, os.WUNTRACED if stands_for_job else 0)
        except ChildProcessError:
            return 0
        if gone == pid and os.WIFSTOPPED(status):
            if os.WSTOPSIG(status) != signal.SIGSTOP:
                _stop_as_well(pid)
        elif gone == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _stop_as_well(pid: int) -> None:
    """Ctrl-Z has stopped the job: the shell is to see it, and to wake it by waking us."""
    from torpor.objects.files.tty_sessions import is_in_foreground

    os.kill(os.getpid(), signal.SIGSTOP)
    if is_in_foreground():
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        with suppress(OSError):
            os.tcsetpgrp(0, os.getpgid(pid))
    _pass_on(pid, signal.SIGCONT)
