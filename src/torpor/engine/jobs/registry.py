"""What is known of each job: a directory with a state file, a log, and by default its checkpoint.

    STATE/jobs/NAME/state.json    this module's record
    STATE/jobs/NAME/log           what the job wrote to its standard output and error
    STATE/jobs/NAME/checkpoint/   images, unless the user named another place

A process is told from a later one with the same pid by its start time and the boot it belongs to; a job whose process
is gone has ended, whatever its file says.  STATE is ``$TORPOR_STATE``, or ``/var/lib/torpor``.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from torpor.base.errors import JobError
from torpor.base.fds import OwnedFd
from torpor.kernel.procfs.stat import read_stat

RUNNING = "running"
CHECKPOINTED = "checkpointed"
ENDED = "ended"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True, slots=True)
class Job:
    """One job.  ``pid`` is as we see it (1 inside); ``exit_status`` as wait(2) gives it, None where nobody knows."""

    name: str
    command: tuple[str, ...]
    created: float
    status: str = RUNNING
    pid: int = 0
    start_time: int = 0
    boot_id: str = ""
    images: str | None = None
    log_in_images: str | None = None
    exit_status: int | None = None

    @property
    def directory(self) -> Path:
        """Where everything of the job lies."""
        return state_directory() / "jobs" / self.name

    @property
    def log(self) -> Path:
        """Standard output and error."""
        return self.directory / "log"

    @property
    def images_directory(self) -> Path:
        """The checkpoint's place."""
        return Path(self.images) if self.images else self.directory / "checkpoint"


def state_directory() -> Path:
    """``$TORPOR_STATE``, or ``/var/lib/torpor``."""
    return Path(os.environ.get("TORPOR_STATE") or "/var/lib/torpor").absolute()


def check_name(name: str) -> str:
    """*name*, if it may name a job; JobError otherwise."""
    if not _NAME.fullmatch(name):
        raise JobError(f"{name!r} cannot name a job", hint="letters, digits, and . _ - after the first")
    return name


def find(name: str) -> Job:
    """The job called *name*, as it is now; JobError if there is none."""
    job = _load(state_directory() / "jobs" / check_name(name))
    if job is None:
        raise JobError(f"there is no job called {name}", hint="`torpor ps -a` lists them")
    return job


def list_jobs() -> list[Job]:
    """All jobs, the oldest first."""
    try:
        entries = sorted((state_directory() / "jobs").iterdir())
    except FileNotFoundError:
        return []
    found = [job for entry in entries if (job := _load(entry)) is not None]
    return sorted(found, key=lambda job: job.created)


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
        shutil.rmtree(job.directory, ignore_errors=True)
        job.directory.mkdir(mode=0o700)
    return job


def remove(job: Job) -> None:
    """Forget a job that does not run, its log and checkpoint in its directory included."""
    if find(job.name).status == RUNNING:
        raise JobError(f"{job.name} is running", hint=f"`torpor kill {job.name}` first")
    discard(job)


def discard(job: Job) -> None:
    """Forget a job that never came to run."""
    shutil.rmtree(job.directory, ignore_errors=True)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Nobody else writes the state file meanwhile: a watcher's report would undo what was noted since it looked."""
    with OwnedFd(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        fcntl.flock(fd.fileno(), fcntl.LOCK_EX)
        yield


def save(job: Job) -> Job:
    """Write the state file, at once or not at all."""
    with _locked(job.directory):
        return _write(job)


def _write(job: Job) -> Job:
    temporary = job.directory / f".state.{os.getpid()}"
    temporary.write_text(json.dumps(asdict(job), indent=1) + "\n", encoding="utf-8")
    temporary.replace(job.directory / "state.json")
    return job


def running(job: Job, pid: int) -> Job:
    """Take note that *pid* is the job's root process now."""
    start_time = read_stat(pid).start_time
    return save(replace(job, status=RUNNING, pid=pid, start_time=start_time, boot_id=_boot_id(), exit_status=None))


def checkpointed(job: Job, images: Path, *, left_running: bool = False) -> Job:
    """Take note of a checkpoint in *images*; unless it was left running, the job sleeps from now on."""
    status = RUNNING if left_running else CHECKPOINTED
    pid = job.pid if left_running else 0
    return save(replace(job, status=status, images=str(images.absolute()), log_in_images=str(job.log), pid=pid))


def renames(job: Job) -> tuple[tuple[str, str], ...]:
    """For the restore of *job*: the paths in its images that other paths are to stand for now (its log)."""
    return ((job.log_in_images, str(job.log)),) if job.log_in_images else ()


def restored(job: Job, pid: int) -> Job:
    """Take note that the job was restored and runs as *pid*; a watcher records its end where the kernel lets it."""
    from torpor.engine.jobs.watch import watch_restored

    job = running(job, pid)
    watch_restored(job)
    return job


def prepare_copy(job: Job, name: str) -> Job:
    """A new job called *name* that is to be a copy of the sleeping (or once checkpointed) *job*."""
    copy = create(name, job.command)
    copy.log.touch(mode=0o600)
    return save(replace(copy, status=ENDED, images=str(job.images_directory), log_in_images=job.log_in_images))


def ended(name: str, pid: int, start_time: int, exit_status: int | None) -> None:
    """Take note that the process has ended, unless the job has been given another one, or been put to sleep."""
    directory = state_directory() / "jobs" / name
    try:
        with _locked(directory):
            job = _read(directory)
            if job is not None and job.status == RUNNING and (job.pid, job.start_time) == (pid, start_time):
                _write(replace(job, status=ENDED, exit_status=exit_status))
    except FileNotFoundError:
        return  # somebody has forgotten it


def is_alive(job: Job) -> bool:
    """Whether the process that the state file names is there, and is that process."""
    if job.status != RUNNING or job.boot_id != _boot_id():
        return False
    try:
        stat = read_stat(job.pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.start_time == job.start_time and stat.state not in "ZX"


def _load(directory: Path) -> Job | None:
    job = _read(directory)
    if job is not None and job.status == RUNNING and not is_alive(job):
        # Its watcher may have written the exit status since.
        job = _read(directory)
        if job is not None and job.status == RUNNING:
            job = replace(job, status=ENDED)
    return job


def _read(directory: Path) -> Job | None:
    try:
        found = json.loads((directory / "state.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise JobError(f"{directory}/state.json is damaged: {error}") from None
    names = {field.name for field in fields(Job)}
    values = {key: value for key, value in found.items() if key in names}
    values["command"] = tuple(values.get("command", ()))
    return Job(**values)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
