"""What is known of each job: a directory with a state file and a log.

    STATE/jobs/NAME/state.json    this module's record
    STATE/jobs/NAME/log           what the job wrote to its standard output and error

A process is told from a later one with the same pid by its start time and the boot it belongs to; a job whose process
is gone has ended, unless its record says otherwise: who lets a process go, or is about to kill one that has been
checkpointed, writes beforehand what is true if it never runs, or is dead.  So the record is right whenever they die.
Checkpoints are kept apart (:mod:`torpor.engine.jobs.generations`); a job that has only those left has ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from torpor.base import log
from torpor.base.errors import JobError, NotPermittedError
from torpor.base.fds import OwnedFd, only_files
from torpor.base.ids import Pid
from torpor.engine.jobs import generations, locks
from torpor.engine.jobs.places import check_name, job_directory, names_in
from torpor.kernel.pidfd import open_pidfd
from torpor.kernel.procfs.stat import read_stat
from torpor.kernel.procfs.task import is_dying

_STATE = "state.json"
RUNNING = "running"
CHECKPOINTED = "checkpointed"
ENDED = "ended"
#: What a copy is that is being made and never comes to run: nothing is left of it.
NEVER = "never"

#: So long after the death of whoever let a process go, or was about to kill it, is it clear what became of that.
_SETTLED_S = 1.0
_RECENT_S = 10.0
#: A record that is written beforehand, and for how long it may be.
_FORESEEN, _FRESH_S = ".state.foreseen", 1.0


@dataclass(frozen=True, slots=True)
class Job:
    """One job.  ``pid`` is as we see it (1 inside); ``exit_status`` as wait(2) gives it, None where nobody knows.

    ``sleeps_in`` is the number of the checkpoint that it sleeps in.  ``otherwise`` is what it is if its process is gone
    and nobody has seen how, as it was written at ``since``; empty: it has ended.
    """

    name: str
    command: tuple[str, ...]
    created: float
    status: str = RUNNING
    pid: int = 0
    start_time: int = 0
    boot_id: str = ""
    exit_status: int | None = None
    sleeps_in: int = 0
    otherwise: str = ""
    since: float = 0.0

    @property
    def directory(self) -> Path:
        """Where its record and its log lie."""
        return job_directory(self.name)

    @property
    def log(self) -> Path:
        """Standard output and error."""
        return self.directory / "log"


def find(name: str) -> Job:
    """The job called *name*, as it is now; JobError if there is none."""
    try:
        job = _load(job_directory(check_name(name))) or _remembered(name)
    except PermissionError:
        raise NotPermittedError(f"{name} is the job of another user", hint=locks.AS_OWNER) from None
    if job is None:
        from torpor.base import nearby

        meant = nearby.near(name, [job.name for job in list_jobs()])
        hint = (meant or "`torpor ps -a` lists them") + (
            "" if os.geteuid() == 0 else "; those of root are seen by root"
        )
        raise JobError(f"there is no job called {name}", hint=hint)
    return job


def list_jobs() -> list[Job]:
    """All jobs that we may know of, the oldest first."""
    found = []
    for name in sorted({*names_in("jobs"), *generations.names()}):
        try:
            job = _load(job_directory(name)) or _remembered(name)
        except PermissionError:
            continue
        except JobError as error:
            log.warn(error.describe())
            continue
        if job is not None:
            found.append(job)
    return sorted(found, key=lambda job: job.created)


def _remembered(name: str) -> Job | None:
    """A job of which only checkpoints are left."""
    found = generations.list_of(name)
    if not found:
        return None
    about = found[-1].note
    return Job(name, about.command, about.created, ENDED)


def find_by_pid(pid: int) -> Job | None:
    """The running job whose root process is *pid*."""
    return next((job for job in list_jobs() if job.status == RUNNING and job.pid == pid), None)


def create(name: str, command: tuple[str, ...]) -> Job:
    """A new job's directory.  One that has ended makes room; JobError for one that runs or sleeps."""
    job = Job(check_name(name), command, time.time())
    job.directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        job.directory.mkdir(mode=0o700)
    except FileExistsError:
        old = _load(job.directory)
        if old is not None and old.status != ENDED:
            raise JobError(
                f"a job called {name} is {old.status}", hint=f"another --name, or `torpor kill --remove {name}` first"
            ) from None
        _remove(job.directory)
        job.directory.mkdir(mode=0o700)
    return job


def remove(job: Job) -> None:
    """Forget a job that does not run, and its log; its checkpoints stay."""
    if find(job.name).status == RUNNING:
        raise JobError(f"{job.name} is running", hint=f"`torpor kill {job.name}` first")
    discard(job)


def discard(job: Job) -> None:
    """Forget a job that never came to run."""
    _remove(job.directory)


def _remove(directory: Path, only: Job | None = None) -> None:
    """Remove a job's directory, if the record in it is still *only*.  The name is free at once.

    A watcher may be about to write there: what is written is either removed with the rest, or not written at all.
    """
    try:
        with _locked(directory):
            if only is not None and _read(directory) != only:
                return
            aside = directory.with_name(f".{directory.name}.{os.getpid()}-{time.monotonic_ns()}")
            directory.rename(aside)
    except FileNotFoundError:
        pass
    # With what others have left who were killed here.
    for left in directory.parent.glob(f".{directory.name}.*"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Nobody else writes the state file meanwhile: a watcher's report would undo what was noted since it looked."""
    while True:
        with OwnedFd(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
            fcntl.flock(fd.fileno(), fcntl.LOCK_EX)
            if not locks.is_at(directory, fd.fileno()):
                continue  # it has been removed meanwhile, and perhaps there is another
            yield
            return


def save(job: Job) -> Job:
    """Write the state file, at once or not at all."""
    with _locked(job.directory):
        return _write(job)


def _write(job: Job) -> Job:
    with _whole(job, ".state.new") as temporary:
        _put(job, temporary)
        temporary.replace(job.directory / _STATE)
    return job


@contextmanager
def _whole(job: Job, name: str) -> Iterator[Path]:
    """A file beside the record, of which nothing is left after an OSError; that says where, as write(2) does not."""
    temporary = job.directory / name
    try:
        yield temporary
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(job.directory)) from error


def _put(job: Job, place: Path) -> None:
    """Have the record of *job* on the disk there."""
    with open(place, "w", encoding="utf-8") as stream:
        stream.write(json.dumps(asdict(job), indent=1) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def running(job: Job, pid: int, otherwise: str = "") -> Job:
    """Take note that *pid* is the job's root process now; *otherwise* is what the job is if that never runs."""
    start_time = read_stat(Pid(pid)).start_time
    return save(
        replace(
            job, status=RUNNING, pid=pid, start_time=start_time, boot_id=_boot_id(), exit_status=None,
            otherwise=otherwise, since=time.time() if otherwise else 0.0,
        )
    )  # fmt: skip


def foresee_sleep(job: Job, number: int) -> Job:
    """Have the record that ``about_to_sleep`` is going to write on the disk already, where it does not count.

    It takes its time, for which the job need not be stopped, or somebody else is waited for as well.  OSError.
    """
    foreseen = _soon_asleep(job, number)
    with _whole(job, _FORESEEN) as place:
        _put(foreseen, place)
    return foreseen


def foresee_nothing(job: Job) -> None:
    """What ``foresee_sleep`` has written is not going to be so."""
    with suppress(OSError):
        (job.directory / _FORESEEN).unlink()


def about_to_sleep(job: Job, number: int, foreseen: Job | None = None) -> Job:
    """Take note that the running job sleeps in its checkpoint *number* as soon as its process is gone.

    *foreseen*: what ``foresee_sleep`` has said of that, if it was asked; of old it is not used.
    """
    if foreseen is not None and 0 <= time.time() - foreseen.since < _FRESH_S:
        with _locked(job.directory), suppress(FileNotFoundError):
            (job.directory / _FORESEEN).replace(job.directory / _STATE)
            return foreseen
    return save(_soon_asleep(job, number))


def _soon_asleep(job: Job, number: int) -> Job:
    return replace(job, sleeps_in=number, otherwise=CHECKPOINTED, since=time.time())


def sleeping(job: Job, number: int) -> Job:
    """Take note that it does, and that its process is gone."""
    return save(replace(job, status=CHECKPOINTED, pid=0, sleeps_in=number, otherwise="", since=0.0))


def lost(job: Job) -> Job:
    """Take note that what the job sleeps in is being removed: it has ended."""
    return save(replace(job, status=ENDED, sleeps_in=0))


def settle(job: Job) -> Job:
    """Take note that the job's process runs for good: what was written to be true otherwise will not be."""
    with suppress(FileNotFoundError), _locked(job.directory):
        now = _read(job.directory)
        # Unless it has ended, or somebody has come to other things since.
        if now is not None and _key(now) == _key(job):
            _write(_settled(now))
    return _settled(job)


def let_go(name: str, pid: int, start_time: int) -> None:
    """Take note that a process of which it was written beforehand runs, where whoever let it go has not."""
    with suppress(FileNotFoundError, JobError):
        job = _read(job_directory(name))
        if job is not None and job.otherwise and (job.pid, job.start_time) == (pid, start_time):
            settle(job)


def _key(job: Job) -> tuple[object, ...]:
    return job.status, job.pid, job.start_time, job.since


def _settled(job: Job) -> Job:
    return replace(job, sleeps_in=0, otherwise="", since=0.0)


def ended(name: str, pid: int, start_time: int, exit_status: int | None) -> None:
    """Take note that the process has ended, unless the job has been given another one, or been put to sleep."""
    directory = job_directory(name)
    with suppress(FileNotFoundError), _locked(directory):  # somebody may have forgotten it
        job = _read(directory)
        if job is None or job.status != RUNNING or (job.pid, job.start_time) != (pid, start_time):
            return
        is_killed = exit_status in (None, signal.SIGKILL)
        if job.otherwise and is_killed and time.time() - job.since < _RECENT_S:
            return  # the record says already what that means
        else:
            _write(replace(_settled(job), status=ENDED, exit_status=exit_status))


def is_alive(job: Job) -> bool:
    """Whether the process that the state file names is there, is that process, and has not been killed."""
    if job.status != RUNNING or job.boot_id != _boot_id():
        return False
    try:
        stat = read_stat(Pid(job.pid))
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.start_time == job.start_time and not is_dying(Pid(job.pid))


def _load(directory: Path) -> Job | None:
    job = _read(directory)
    if job is None or job.status != RUNNING:
        return job
    if job.otherwise and not locks.holder(job.name):
        # Whoever wrote that is dead, and its guardian is about to end what has not been let go, if it has not.
        _wait_settled(job)
        if is_alive(job):
            with suppress(OSError):
                return settle(job)
    if is_alive(job):
        return job
    # Its watcher may have written the exit status since.
    job = _read(directory)
    if job is not None and job.status == RUNNING:
        if job.otherwise == NEVER:
            if not locks.holder(job.name):
                _remove(directory, only=job)
            return None
        job = replace(job, status=job.otherwise or ENDED, otherwise="", since=0.0)
    return job


def _wait_settled(job: Job) -> None:
    if time.time() - job.since > _RECENT_S or not is_alive(job):
        return
    with suppress(OSError), OwnedFd(open_pidfd(Pid(job.pid))) as pidfd:
        poll = select.poll()
        poll.register(pidfd.fileno(), select.POLLIN)
        poll.poll(_SETTLED_S * 1000)


def _read(directory: Path) -> Job | None:
    try:
        with open(directory / _STATE, encoding="utf-8", opener=only_files) as stream:
            found = json.loads(stream.read())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise JobError(f"{directory}/state.json is damaged: {error}") from None
    try:
        values = {field.name: found[field.name] for field in fields(Job) if field.name in found}
        return Job(**values | {"command": tuple(values["command"])})
    except (LookupError, TypeError) as error:
        raise JobError(f"{directory}/state.json is damaged: {error}") from None


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
