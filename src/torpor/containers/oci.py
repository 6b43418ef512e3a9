"""runc and crun on their own: containers made from a bundle, checkpoints as directories of images.

Both keep the containers of engines above them in the same place; names.py takes those out.  The bundle is not part of a
checkpoint: a container is restored from its images and the bundle that it came from, which the note names.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from torpor.base.errors import EngineError, NotPermittedError, TorporError, UsageError
from torpor.containers import note
from torpor.containers.commands import command_of, failure, run
from torpor.containers.model import (
    LIST_TIMEOUT_S,
    Container,
    Restored,
    Runtime,
    Words,
    is_begin_of_id,
    only,
    option_line,
)
from torpor.kernel.procfs.small import read_small

_DUMP_WORDS = frozenset({"auto-dedup", "empty-ns", "ext-unix-sk", "file-locks", "leave-running", "link-remap",
    "manage-cgroups-mode", "parent-path", "shell-job", "tcp-established", "tcp-skip-in-flight", "pre-dump",
    "work-path"})  # fmt: skip
_RESTORE_WORDS = frozenset({"console-socket", "empty-ns", "ext-unix-sk", "file-locks", "lsm-profile",
    "lsm-mount-context", "manage-cgroups-mode", "no-pivot", "pid-file", "shell-job", "tcp-established",
    "work-path"})  # fmt: skip


#: Of the user namespace in which nobody is left out; and who those are elsewhere.
_ALL_IDS, _NOBODY = ["0", "0", "4294967295"], 65534


class OciRuntime:
    """ContainerEngine for a runtime on its own, ``runc`` or ``crun``, by its command."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find(self, word: str) -> list[Container]:
        """By the names of the state directories: a list would ask for every container, of which one may hang."""
        command = command_of(self.name)
        if not command:
            return []
        try:
            ids = os.listdir(state_root(self.name))
        except OSError:
            return []
        called = [word] if word in ids else []
        if not called and is_begin_of_id(word):
            called = [ident for ident in ids if len(ident) == 64 and ident.startswith(word)]
        return [self._look(ident) for ident in called]

    def _look(self, ident: str) -> Container:
        told = json.loads(run(self.name, "state", ident, timeout_s=LIST_TIMEOUT_S))
        state, bundle = str(told["status"]), str(told.get("bundle", ""))
        return Container(self.name, ident, ident, state, int(told.get("pid") or 0), place=bundle)

    def about(self, container: Container) -> Runtime:
        return Runtime(self.name, Path(container.place, "config.json") if container.place else None)

    def checkpoint(self, container: Container, output: Path | None, words: Words) -> str:
        if output is None:
            raise UsageError(f"torpor checkpoint {container.label}: where to?", hint="-o PATH names a directory")
        line = option_line(self.name, "checkpoints", words, _DUMP_WORDS)
        output.mkdir(mode=0o700, parents=True, exist_ok=True)
        where = output.absolute()
        work = [] if any(name == "work-path" for name, _ in words) else [f"--work-path={where}"]
        with note.written(output, container):
            run(self.name, "checkpoint", f"--image-path={where}", *work, *line, container.id)
        return str(output)

    def restore(self, container: Container, words: Words) -> Restored:
        raise UsageError(f"{self.name} keeps no checkpoints", hint="name the directory that it was checkpointed to")

    def restore_directory(self, directory: Path, told: note.Note, name: str | None, words: Words) -> Restored:
        """Make a container of the images in *directory*, from the bundle that it came from."""
        ident = name or told.name
        if not Path(told.place, "config.json").is_file():
            raise EngineError(f"the bundle of {told.name}, {told.place}, is not there any more")
        check_bundle(told.place, directory)
        line = option_line(self.name, "restores", words, _RESTORE_WORDS)
        where = directory.absolute()
        self._restore_detached(
            [f"--image-path={where}", f"--work-path={where}", f"--bundle={told.place}", "--detach", *line, ident]
        )
        return Restored(only(self.name, self.find(ident), ident))

    def remove(self, container: Container) -> None:
        """Take a container away, running or not.

        Who is in a frozen group of v1 does not even die: a runtime that was killed in a checkpoint leaves it so.
        """
        with suppress(TorporError):
            run(self.name, "resume", container.id)
        run(self.name, "delete", "--force", container.id)

    def _restore_detached(self, words: list[str]) -> None:
        """The container keeps the runtime's standard streams: so they are our user's, not pipes of ours."""
        import subprocess

        with tempfile.NamedTemporaryFile("r", prefix="torpor-", suffix=".log") as log:
            line = [*command_of(self.name), "--log", log.name, "restore", *words]
            if len(line) == len(words) + 3:
                raise EngineError(f"there is no {self.name} on this machine")
            code = subprocess.call(line)
            if code:
                raise failure(self.name, log.read(), code)


def check_bundle(place: str, images: Path | None = None) -> None:
    """NotPermittedError where the bundle in *place* is not surely of whoever runs us, or of root.

    Its hooks are run outside of the container, with our rights, and its name comes from beside the *images*, which may
    be a stranger's.
    """
    ours = {0, os.geteuid()}
    if not os.geteuid() and (user := os.environ.get("SUDO_UID", "")).isdecimal():
        ours.add(int(user))
    if read_small("/proc/self/uid_map").split() != _ALL_IDS:
        ours.add(_NOBODY)  # root may be, in a user namespace
    named, real = Path(os.path.normpath(place)), Path(os.path.realpath(place))
    for each in dict.fromkeys((real / "config.json", real, *real.parents, named, *named.parents)):
        info = os.lstat(each)
        is_open = not stat.S_ISLNK(info.st_mode) and info.st_mode & stat.S_IWOTH and not info.st_mode & stat.S_ISVTX
        if info.st_uid not in ours or is_open:
            raise NotPermittedError(
                f"the bundle {place}, which the checkpoint names: {each} is user {info.st_uid}'s"
                f"{', and anybody may write there' if is_open else ''}",
                hint="what is in a bundle is run with your rights: chown it, if it is the right one",
            )
    if not named.is_absolute() or Path("/proc") in named.parents or (images and real.is_relative_to(images.resolve())):
        raise NotPermittedError(f"the checkpoint names a bundle ({place}) that came with it, or is nowhere by itself")


def state_root(name: str) -> str:
    """Where the runtime keeps the state of its containers: the value of ``--root``."""
    return _root(command_of(name)) or f"/run/{name}"


def _root(command: list[str]) -> str | None:
    for at, word in enumerate(command):
        if word == "--root":
            return command[at + 1] if at + 1 < len(command) else None
        if word.startswith("--root="):
            return word.removeprefix("--root=")
    return None


def is_runtime(engine: str) -> bool:
    """Whether that is a runtime, which engines use."""
    return engine in ("runc", "crun")


RUNC = OciRuntime("runc")
CRUN = OciRuntime("crun")
