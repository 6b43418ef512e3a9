"""What is said of a container whatever its engine is, and what an engine here can be asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torpor.base.errors import UsageError

#: Options as the engine's own command has them, without the dashes, each with its value ("" for a switch).
Words = Sequence[tuple[str, str]]

#: What says that in seconds instead.
LIST_TIMEOUT_VARIABLE = "TORPOR_LIST_TIMEOUT"


def _list_timeout_s() -> float:
    try:
        return float(os.environ[LIST_TIMEOUT_VARIABLE])
    except (KeyError, ValueError):
        return 20.0


#: How long an engine may take to say what containers there are: one that hangs must not keep the others from answering.
LIST_TIMEOUT_S = _list_timeout_s()
_MIN_ID = 4

RUNNING = frozenset({"running", "paused", "up"})


@dataclass(frozen=True, slots=True)
class Container:
    """One container.  ``pid`` is its first process as we see it, 0 if it does not run.

    ``place`` is what the engine needs besides the name: a containerd namespace, a runc bundle.  ``pod`` is the id of
    the pod that it is in, "" for none.
    """

    engine: str
    name: str
    id: str
    state: str
    pid: int = 0
    image: str = ""
    place: str = ""
    pod: str = ""

    @property
    def label(self) -> str:
        """How a user names it without ambiguity."""
        return f"{self.engine}:{self.name}"

    @property
    def runs(self) -> bool:
        """Whether there is something to checkpoint."""
        return self.state in RUNNING


@dataclass(frozen=True, slots=True)
class Restored:
    """A container that runs again, and its addresses (without prefix lengths)."""

    container: Container
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Runtime:
    """The runtime that has a container: its name, and the configuration that it made it from (config.json)."""

    name: str
    config: Path | None


class ContainerEngine(Protocol):
    """An engine by its own command.  All raise EngineError with what the command said."""

    name: str

    def find(self, word: str) -> list[Container]:
        """The container of that name, or those whose id begins so; none if the engine is not here."""

    def about(self, container: Container) -> Runtime:
        """What its runtime will be told of it."""

    def checkpoint(self, container: Container, output: Path | None, words: Words) -> str:
        """Checkpoint it, into *output* or wherever the engine keeps checkpoints; what to say of where it is."""

    def restore(self, container: Container, words: Words) -> Restored:
        """Wake one that sleeps in a checkpoint which the engine keeps itself."""


def option_line(engine: str, doing: str, words: Words, allowed: frozenset[str], hint: str = "") -> list[str]:
    """The words for the engine's command line; UsageError for those that it does not have."""
    line = []
    for name, value in words:
        if name not in allowed:
            raise UsageError(f"--{name}: {engine} cannot do that when it {doing} a container", hint=hint or None)
        line.append(f"--{name}={value}" if value else f"--{name}")
    return line


def matching(containers: list[Container], word: str) -> list[Container]:
    """Those that *word* means: the one called so, or all whose (long) id begins so."""
    called = [container for container in containers if word in (container.name, container.id)]
    if called or not is_begin_of_id(word):
        return called
    return [container for container in containers if len(container.id) == 64 and container.id.startswith(word)]


def is_begin_of_id(word: str) -> bool:
    """Whether that may be the beginning of an id."""
    return len(word) >= _MIN_ID and not set(word) - set("0123456789abcdef")


def only(engine: str, containers: list[Container], name: str) -> Container:
    """The container that was just made."""
    from torpor.base.errors import EngineError

    for container in containers:
        if name in (container.name, container.id):
            return container
    raise EngineError(f"{engine} does not know {name} any more: it ended at once", hint=f"{engine} logs {name}")


def shim_config(namespace: str, ident: str) -> Path | None:
    """The configuration in the bundle that containerd's shim makes, for Docker as well."""
    for state in ("/run/containerd", "/run/docker/containerd/daemon", "/var/run/docker/containerd/daemon"):
        path = Path(state, "io.containerd.runtime.v2.task", namespace, ident, "config.json")
        if path.is_file():
            return path
    return None
