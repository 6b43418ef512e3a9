"""What a word on the command line means: a process or unit, one of torpor's jobs, or a container of an engine here.

``podman:NAME`` (docker, runc, crun, containerd, lxc; job; pid) says which; a bare word is looked up everywhere.  A word
of digits alone is a process or a job, and UNIT.service or UNIT.scope the main process of a unit of systemd.  A
container is called by its name or by the beginning of its id; that of an engine is not at the same time one of the
runtime that the engine uses.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torpor.base.errors import AmbiguousNameError, EngineError, JobError, TargetGoneError, TorporError, UsageError
from torpor.base.nearby import near
from torpor.containers import systemd
from torpor.containers.containerd import Containerd
from torpor.containers.docker import Docker
from torpor.containers.lxc import Lxc
from torpor.containers.model import Container, ContainerEngine
from torpor.containers.oci import CRUN, RUNC, is_runtime
from torpor.containers.podman import Podman
from torpor.containers.systemd import Unit
from torpor.engine import jobs
from torpor.engine.jobs import Job

PODMAN, DOCKER, CONTAINERD, LXC = Podman(), Docker(), Containerd(), Lxc()
ENGINES: dict[str, ContainerEngine] = {engine.name: engine for engine in (PODMAN, DOCKER, CONTAINERD, LXC, RUNC, CRUN)}


@dataclass(frozen=True, slots=True)
class Target:
    """What a word means.  ``pid`` is 0 for what does not run; at most one of the last three is there."""

    label: str
    pid: int
    job: Job | None = None
    container: Container | None = None
    unit: Unit | None = None

    @property
    def what(self) -> str:
        """For a list of several."""
        if self.container is not None:
            return f"{self.label} ({self.container.id[:12]}, {self.container.state})"
        return self.label


def resolve(word: str, engine: str | None = None) -> Target:
    """What *word* means; with *engine*, as that engine has it.

    AmbiguousNameError lists everything that it may mean; TorporError if nothing bears the name.
    """
    prefix, colon, rest = word.partition(":")
    if colon and (prefix in ENGINES or prefix in ("job", "pid")):
        if engine not in (None, prefix):
            raise UsageError(f"{word} is not of {engine}", hint="leave out --engine or the prefix")
        engine, word = prefix, rest
    if not word:
        raise UsageError("a name is missing")
    if engine == "pid":
        return _process(word)
    if engine == "job":
        return _job(jobs.find(word))
    if engine is not None:
        if engine not in ENGINES:
            raise UsageError(f"there is no engine {engine}", hint=f"one of {', '.join(ENGINES)}")
        return _one(word, [_container(found) for found in _find_in(ENGINES[engine], word)], [])
    return _anything(word)


def stored_checkpoint(target: Target) -> Path:
    """Where the engine of a container that sleeps keeps its checkpoint; TorporError if there is none."""
    container = target.container
    if container is None or container.engine != PODMAN.name:
        raise TorporError(f"{target.label} has no checkpoint that can be looked at", hint="name its file or directory")
    return PODMAN.stored_checkpoint(container)


def _anything(word: str) -> Target:
    here = _jobs_called(word)
    if word.isdigit():
        is_process = os.path.exists(f"/proc/{int(word)}")
        return _one(word, [*([_process(word)] if is_process else []), *here], [])
    if word.endswith(systemd.SUFFIXES) and not here:
        return _unit(systemd.find(word))
    found, silent = _find_everywhere(word)
    return _one(word, [*here, *map(_container, found)], silent)


def _one(word: str, found: Sequence[Target], silent: Sequence[str]) -> Target:
    if len(found) == 1:
        return found[0]
    if found:
        raise AmbiguousNameError(
            f"{word} means several things: {', '.join(target.what for target in found)}",
            hint=f"say which: {' or '.join(_spelling(target) for target in found)}",
        )
    if word.isdigit():
        raise TargetGoneError(
            f"no process has pid {word}",
            hint="it has ended, as setsid does in `setsid CMD &`: say `CMD &`, torpor gives it a session of its own",
        )
    hint = near(word, _known()) or "`torpor ps`, `podman ps` list what there is"
    error = TorporError(f"no job or container is called {word}", hint=hint)
    for text in silent:
        error.add_note(f"not asked: {text}")
    raise error


def _known() -> Iterator[str]:
    """The names of the jobs, and of the containers of the engines that can list them."""
    yield from (job.name for job in jobs.list_jobs())
    for engine in (PODMAN, DOCKER, CONTAINERD):
        with suppress(EngineError, ValueError, LookupError, TypeError, AttributeError):
            yield from (container.name for container in engine.containers())


def _spelling(target: Target) -> str:
    """A word that means this and nothing else."""
    container = target.container
    return f"{container.engine}:{container.id[:12]}" if container is not None else target.label


def _process(word: str) -> Target:
    if not word.isdigit():
        raise UsageError(f"{word} is no pid")
    return Target(f"pid:{int(word)}", int(word), job=jobs.find_by_pid(int(word)))


def _job(job: Job) -> Target:
    return Target(f"job:{job.name}", job.pid if job.status == jobs.RUNNING else 0, job=job)


def _unit(unit: Unit) -> Target:
    return Target(unit.name, unit.pid, unit=unit)


def _jobs_called(word: str) -> list[Target]:
    try:
        return [_job(jobs.find(word))]
    except JobError:
        return []


def _container(container: Container) -> Target:
    return Target(container.label, container.pid, container=container)


def _find_everywhere(word: str) -> tuple[list[Container], list[str]]:
    """Every container that the word may mean, and why engines could not be asked."""

    def ask(engine: ContainerEngine) -> list[Container] | str:
        try:
            return _find_in(engine, word)
        except EngineError as error:
            return str(error)

    with ThreadPoolExecutor(len(ENGINES)) as pool:
        answers = list(pool.map(ask, ENGINES.values()))
    found = [container for answer in answers if not isinstance(answer, str) for container in answer]
    of_engines = {container.id for container in found if not is_runtime(container.engine)}
    kept = [each for each in found if not is_runtime(each.engine) or each.id not in of_engines]
    return kept, [answer for answer in answers if isinstance(answer, str)]


def _find_in(engine: ContainerEngine, word: str) -> list[Container]:
    """What the engine knows by that word, or an EngineError."""
    try:
        return engine.find(word)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise EngineError(f"{engine.name} answers what torpor does not understand: {error}") from None
