"""LXC by ``lxc-checkpoint``: checkpoints as directories of images."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from torpor.base.errors import EngineError, UsageError
from torpor.containers import note
from torpor.containers.commands import command_of, run
from torpor.containers.model import LIST_TIMEOUT_S, Container, Restored, Runtime, Words, option_line

_CHECKPOINT = "lxc-checkpoint"


class Lxc:
    """ContainerEngine for LXC, by its commands (``lxc-checkpoint``, ...)."""

    name = "lxc"

    def find(self, word: str) -> list[Container]:
        if not command_of(_CHECKPOINT) or not command_of("lxc-ls"):
            return []
        there = run("lxc-ls", "-1", timeout_s=LIST_TIMEOUT_S).split()
        return [self._look(word)] if word in there else []

    def _look(self, name: str) -> Container:
        state = pid = ""
        with suppress(EngineError):
            state = run("lxc-info", "-n", name, "-s", "-H").strip().lower()
            pid = run("lxc-info", "-n", name, "-p", "-H").strip()
        state = "paused" if state == "frozen" else state
        return Container(self.name, name, name, state, int(pid) if pid.isdigit() else 0)

    def about(self, container: Container) -> Runtime:
        return Runtime("lxc", None)

    def checkpoint(self, container: Container, output: Path | None, words: Words) -> str:
        if output is None:
            raise UsageError(f"torpor checkpoint {container.label}: where to?", hint="-o PATH names a directory")
        option_line(self.name, "checkpoints", words, frozenset({"leave-running"}))
        output.mkdir(mode=0o700, parents=True, exist_ok=True)
        stop = [] if words else ["-s"]
        with note.written(output, container):
            run(_CHECKPOINT, "-n", container.name, "-D", output.absolute(), "-v", *stop)
        return str(output)

    def restore(self, container: Container, words: Words) -> Restored:
        raise UsageError("LXC keeps no checkpoints", hint="name the directory that it was checkpointed to")

    def restore_directory(self, directory: Path, told: note.Note, words: Words) -> Restored:
        """Restore the container that *directory* is a checkpoint of."""
        option_line(self.name, "restores", words, frozenset())
        run(_CHECKPOINT, "-r", "-n", told.name, "-D", directory.absolute(), "-v", to_its_end=True)
        return Restored(self._look(told.name))
