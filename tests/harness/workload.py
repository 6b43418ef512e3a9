"""A small C program that checks itself: started, waited for, told to finish, cleaned away. See workloads/workload.h.

Nothing outside of a workload is attached to it: it leads a session of its own, reads /dev/null and appends to a regular
file. Nothing here sleeps or polls; the program's reports are renames, seen by inotify, and its end is seen by pidfd.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from harness import engine, fresh
from harness.compiler import compiled
from harness.events import ProcessWatch, RenameWatch, become_subreaper, time_limit_s, wait_renamed
from harness.processes import MARK_VARIABLE, find_tree, kill_tree, new_mark, reap_session, watch_tree

READY = "ready"
PASS = "pass"


#: Arguments: the log, the command. The environment of the job is ours but for what concerns Python and torpor.
_START_JOB = """
import os, sys
from torpor.engine import jobs
keep = {name: os.environ[name] for name in ("PATH", "LC_ALL", sys.argv[1])}
print(jobs.start(sys.argv[3:], "workload", environment=keep, directory="/", log=sys.argv[2]).pid)
"""


class WorkloadError(Exception):
    """A workload died, hung or failed. The text holds its log's end."""


class Workload:
    """One run of a workload. A context manager: leaving it kills what is left and removes the run's files.

    Set $TORPOR_KEEP to keep the files (status, log, the program's directory, images) and have their place printed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.base = Path(tempfile.mkdtemp(prefix=f"torpor-{Path(name).name}-"))
        self.status_file = self.base / "status"
        self.log_file = self.base / "log"
        self.directory = self.base / "dir"
        self.images = self.base / "images"
        self.directory.mkdir()
        self.images.mkdir()
        self.mark = new_mark()
        self._process: subprocess.Popen[bytes] | None = None
        self._root: ProcessWatch | None = None
        self._left_behind: list[ProcessWatch] = []
        self._in_job = False
        self._renames = RenameWatch(self.base)

    @classmethod
    def start(cls, name: str, args: Sequence[str] = (), *, prefix: Sequence[str] = ()) -> Self:
        """Compile tests/workloads/NAME.c if need be and start it with `args` after `--`.

        `prefix` is a command to start it by, which must become the program (`setpriv ...`, not `unshare --fork ...`).
        """
        program = compiled(name)
        become_subreaper()
        self = cls(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            log_fd = os.open(self.log_file, flags, 0o644)
            try:
                self._process = subprocess.Popen(
                    [*prefix, *self._command(program, args)],
                    stdin=subprocess.DEVNULL,
                    stdout=log_fd,
                    stderr=log_fd,
                    cwd="/",
                    env=self._environment(),
                    start_new_session=True,
                )
            finally:
                os.close(log_fd)
            self._root = ProcessWatch(self._process.pid)
        except BaseException:
            self.close()
            raise
        return self

    @classmethod
    def start_in_job(cls, name: str, args: Sequence[str] = ()) -> Self:
        """Like `start`, as a job of torpor: the first process of pid, mount, uts and ipc namespaces of its own.

        Its pid is the one that we see, and another one after a restore.
        """
        program = compiled(name)
        become_subreaper()
        self = cls(name)
        self._in_job = True
        state = {**os.environ, "TORPOR_STATE": str(self.base / "state")}
        start = [sys.executable, "-c", _START_JOB, MARK_VARIABLE, str(self.log_file), *self._command(program, args)]
        try:
            # By a process of its own, so that the watcher is no fork of a test run.
            done = subprocess.run(
                start, env=state | self._environment(), stdout=subprocess.PIPE, cwd="/", text=True, check=True
            )
            self._root = ProcessWatch(int(done.stdout))
        except BaseException:
            self.close()
            raise
        return self

    @classmethod
    def start_fresh(cls, name: str, args: Sequence[str] = (), *, user: bool = False) -> Self:
        """Like `start`, as the first process of namespaces of its own: pid, mnt, uts, ipc, net, and `user` if wanted.

        Its pid is the one that we see, and another one after a restore.
        """
        program = compiled(name)
        become_subreaper()
        self = cls(name)
        self._in_job = True
        if user:
            # Nobody in there can look into a directory of ours.
            program = Path(shutil.copy2(program, self.base))
            for path in (self.base, self.directory, program):
                os.chown(path, *fresh.ROOT)
        start = [sys.executable, "-P", fresh.__file__, "user" if user else "none", MARK_VARIABLE, str(self.log_file)]
        try:
            done = subprocess.run(
                [*start, *self._command(program, args)],
                env={**os.environ, **self._environment()},
                capture_output=True,
                cwd="/",
                text=True,
                check=False,
            )
            if done.returncode:
                raise WorkloadError(f"{name} cannot be started in new namespaces: {done.stdout}{done.stderr}")
            self._root = ProcessWatch(int(done.stdout))
        except BaseException:
            self.close()
            raise
        return self

    def _command(self, program: Path, args: Sequence[str]) -> list[str]:
        command = [str(program), "--status", str(self.status_file), "--dir", str(self.directory)]
        return [*command, "--", *args] if args else command

    def _environment(self) -> dict[str, str]:
        """Few and known variables: the environment is part of what is dumped."""
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", MARK_VARIABLE: self.mark}

    @property
    def pid(self) -> int:
        """The root process's pid, before and after a restore."""
        return self._watch().pid

    def _watch(self) -> ProcessWatch:
        if self._root is None:
            raise WorkloadError(f"{self.name} has not been started")
        return self._root

    def processes(self) -> list[int]:
        """The pids of all living processes of this workload, in order."""
        return find_tree(self.mark, (self.pid,) if not self._watch().has_ended() else ())

    def status(self) -> str:
        """The last report: "" before the first, then "ready", then "pass" or "fail: ..."."""
        with suppress(FileNotFoundError):
            return self.status_file.read_text()
        return ""

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def wait_ready(self, timeout_s: float = 30) -> None:
        """Wait until the program has prepared its state. Raises WorkloadError if it dies, fails or takes too long."""
        reported = wait_renamed(self._renames, self._watch(), lambda: self.status() != "", time_limit_s(timeout_s))
        if not reported or self.status() != READY:
            raise WorkloadError(self._account("did not become ready"))

    def dump(self, *, leave_running: bool = False, options: Sequence[str] = ()) -> None:
        """Dump into `images`; unless it is left running, also wait until all its processes are gone, pids free."""
        watches = [] if leave_running else watch_tree(self.mark, (self.pid,))
        try:
            engine.dump(self.pid, self.images, leave_running=leave_running, options=options)
            for watch in watches:
                if not watch.wait_ended(time_limit_s(10)):
                    raise WorkloadError(f"process {watch.pid} of {self.name} is still there after it was dumped")
                self._reap(watch)
            if not leave_running:
                reap_session(self.pid)
        finally:
            for watch in watches:
                watch.close()
        if leave_running and self._watch().has_ended():
            raise WorkloadError(self._account("was to be left running, but has ended"))

    def reap(self) -> None:
        """Free the root's pid and its session's, once all have been killed by others than `dump`."""
        self._reap(self._watch())
        reap_session(self.pid)

    def restore(self, *, options: Sequence[str] = ()) -> None:
        """Restore from `images`; the pid must be the one that was dumped (in a job's namespace it always is)."""
        dumped_pid = self.pid
        if not self._watch().has_ended():
            raise WorkloadError(f"{self.name} is to be restored but still runs")
        # A mount namespace shows mounts of the host's, which are bound again only for those who say so.
        self.runs_as(engine.restore(self.images, options=("--external", "mnt[]", *options)))
        if self.pid != dumped_pid and not self._in_job:
            raise WorkloadError(self._account(f"had pid {dumped_pid} and was restored as {self.pid}"))

    def runs_as(self, pid: int) -> None:
        """It has been restored, as the process `pid`, after `dump`."""
        try:
            restored = ProcessWatch(pid)
        except ProcessLookupError:
            raise WorkloadError(self._account("was gone right after its restore")) from None
        self._watch().close()
        self._root = restored

    def wait_gone(self, timeout_s: float = 30) -> None:
        """Somebody else has dumped it: wait until it is gone, and its pid free."""
        if not self._watch().wait_ended(time_limit_s(timeout_s)):
            raise WorkloadError(f"{self.name} has been dumped, and still runs")
        self._reap(self._watch())
        reap_session(self.pid)

    def go_on_as(self, pid: int) -> None:
        """What was started is gone, or is about to be; it is the process `pid` that was restored of it."""
        self.wait_gone()
        self._watch().close()
        self._root = ProcessWatch(pid)

    def finish(self, timeout_s: float = 30) -> str:
        """Tell the program to check its state, wait for its end and return its report: "pass" or "fail: ...".

        Raises WorkloadError if it does not end in time or ends without a report.
        """
        root = self._watch()
        if not root.has_ended():
            # Children that the root does not wait for become ours when it ends; `close` frees their pids.
            self._left_behind += watch_tree(self.mark, (root.pid,))
        root.signal(signal.SIGTERM)
        if not root.wait_ended(time_limit_s(timeout_s)):
            raise WorkloadError(self._account(f"did not end within {time_limit_s(timeout_s):g} s of SIGTERM"))
        self._reap(root)
        status = self.status()
        if status in ("", READY):
            raise WorkloadError(self._account("ended without a report"))
        return status

    def expect_pass(self) -> None:
        """`finish`, and raise WorkloadError unless the report is "pass"."""
        if self.finish() != PASS:
            raise WorkloadError(self._account("failed"))

    def close(self) -> None:
        """Kill what is left of the workload and remove its files. May be called again."""
        try:
            kill_tree(self.mark, self._root)
            if self._root is not None:
                self._reap(self._root)
            for watch in self._left_behind:
                if watch.has_ended():
                    watch.reap()
        finally:
            self._renames.close()
            while self._left_behind:
                self._left_behind.pop().close()
            if self._root is not None:
                self._root.close()
            if os.environ.get("TORPOR_KEEP"):
                print(f"kept: {self.base}")
            else:
                shutil.rmtree(self.base, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _reap(self, ended: ProcessWatch) -> None:
        """Free the pid of a process that has ended: the first one is a Popen, others are children by adoption."""
        if self._process is not None and self._process.returncode is None and self._process.pid == ended.pid:
            self._process.wait()
        else:
            ended.reap()

    def _account(self, what: str) -> str:
        """What happened, with all that helps to find out why."""
        lines = [f"workload {self.name} {what}", f"status: {self.status() or '(no report)'}"]
        if self._root is not None and not self._root.has_ended():
            for pid in self.processes():
                for name in ("wchan", "syscall"):
                    with suppress(OSError):
                        lines.append(f"/proc/{pid}/{name}: {Path(f'/proc/{pid}/{name}').read_text().strip()}")
        elif self._process is not None and self._process.poll() is not None:
            lines.append(f"exit status of the process first started: {self._process.returncode}")
        lines += ["---- its log", *self.log().splitlines()[-60:]]
        return "\n".join(lines)
