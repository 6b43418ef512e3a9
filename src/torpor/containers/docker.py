"""Docker: checkpoints lie in the daemon's own directory, or are copied there to start from.

``docker start --checkpoint-dir`` is refused by current daemons ("custom checkpointdir is not supported"), so what was
written elsewhere goes through the container's own directory.  A checkpoint belongs to its container, which stays, but
does not run.
"""

from __future__ import annotations

import json
import shutil
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from torpor.base.errors import EngineError, NotPermittedError, UsageError
from torpor.containers import note
from torpor.containers.commands import command_of, run
from torpor.containers.model import (
    LIST_TIMEOUT_S,
    Container,
    Restored,
    Runtime,
    Words,
    matching,
    option_line,
    shim_config,
)

#: The checkpoint's own folder in a directory that a user names.
FOLDER = "checkpoint"
_DUMP_WORDS = frozenset({"leave-running"})
_RESTORE_WORDS = frozenset({"checkpoint"})
_NAME = "torpor-"
_GARBAGE_S = 30.0
_OTHER_OPTIONS = "docker has no such option: put it, without the dashes, into /etc/criu/runc.conf"


class Docker:
    """ContainerEngine for Docker, by the command ``docker``."""

    name = "docker"

    def find(self, word: str) -> list[Container]:
        return [self._with_pid(container) for container in matching(self.containers(), word)]

    def containers(self) -> list[Container]:
        if not command_of(self.name):
            return []
        lines = run(
            self.name, "ps", "--all", "--no-trunc", "--format", "{{json .}}", timeout_s=LIST_TIMEOUT_S
        ).splitlines()
        found = []
        for line in lines:
            entry = json.loads(line)
            name, image = str(entry["Names"]).partition(",")[0], str(entry.get("Image", ""))
            found.append(Container(self.name, name, str(entry["ID"]), str(entry.get("State", "")), image=image))
        return found

    def _with_pid(self, container: Container) -> Container:
        told = self._inspect(container.id)
        state = told.get("State") or {}
        pid = state.get("Pid")
        known = pid if isinstance(pid, int) else 0
        return replace(container, pid=known, state=str(state.get("Status", container.state)))

    def about(self, container: Container) -> Runtime:
        host = self._inspect(container.id).get("HostConfig") or {}
        return Runtime(str(host.get("Runtime") or "runc"), shim_config("moby", container.id))

    def checkpoint(self, container: Container, output: Path | None, words: Words) -> str:
        line = option_line(self.name, "checkpoints", words, _DUMP_WORDS, _OTHER_OPTIONS)
        name = f"{_NAME}{time.strftime('%Y%m%d-%H%M%S')}"
        if output is None:
            run(self.name, "checkpoint", "create", *line, container.id, name)
            return f"docker's storage, as {name}"
        output.mkdir(mode=0o700, parents=True, exist_ok=True)
        where = f"--checkpoint-dir={output.absolute()}"
        with note.written(output, container):
            run(self.name, "checkpoint", "create", where, *line, container.id, FOLDER)
        return str(output)

    def restore(self, container: Container, words: Words) -> Restored:
        option_line(self.name, "restores", words, _RESTORE_WORDS, _OTHER_OPTIONS)
        wanted = next((value for name, value in words if name == "checkpoint"), None)
        checkpoint = wanted or self._latest(container)
        self._start(container, checkpoint)
        return self._restored(container)

    def restore_directory(self, directory: Path, told: note.Note, words: Words) -> Restored:
        """Start the container that *directory* is a checkpoint of."""
        option_line(self.name, "restores", words, frozenset(), _OTHER_OPTIONS)
        container = Container(self.name, told.name, str(self._inspect(told.id)["Id"]), "exited")
        root = Path(run(self.name, "info", "--format", "{{.DockerRootDir}}").strip())
        name = f"{_NAME}from-directory"
        place = root / "containers" / container.id / "checkpoints" / name
        shutil.rmtree(place, ignore_errors=True)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            images = directory / FOLDER
            # Images that came out of one file lie in a folder beside the note, all others in the directory itself.
            shutil.copytree(
                images if images.is_dir() else directory, place, symlinks=True, ignore=lambda *_: [note.NAME]
            )
            self._start(container, name)
        except PermissionError as error:
            raise NotPermittedError(f"{place}: {error.strerror}", hint="run as root, where the daemon runs") from None
        except shutil.Error as error:
            raise EngineError(f"{directory} cannot be copied into docker's directory: {error}") from None
        finally:
            shutil.rmtree(place, ignore_errors=True)
        return self._restored(container)

    def _start(self, container: Container, checkpoint: str) -> None:
        """Start from a checkpoint.

        The daemon puts it into containerd's store, where it already is if it was made a moment ago (moby issue 42900):
        until containerd collects its garbage, in some seconds, that fails.
        """
        deadline = time.monotonic() + _GARBAGE_S
        while True:
            try:
                run(self.name, "start", f"--checkpoint={checkpoint}", container.id, to_its_end=True)
                return
            except EngineError as error:
                if "already exists" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    def _latest(self, container: Container) -> str:
        names = run(self.name, "checkpoint", "ls", container.id).split()[1:]
        names = [name for name in names if name != "NAME"]
        ours = sorted(name for name in names if name.startswith(_NAME))
        if ours:
            return ours[-1]
        if len(names) == 1:
            return names[0]
        if not names:
            raise EngineError(f"{container.label} has no checkpoint")
        raise UsageError(f"{container.label} has several checkpoints", hint=f"--checkpoint {' or '.join(names)}")

    def _inspect(self, ident: str) -> dict[str, dict[str, object]]:
        told: list[dict[str, dict[str, object]]] = json.loads(run(self.name, "container", "inspect", ident))
        return told[0]

    def _restored(self, container: Container) -> Restored:
        networks = (self._inspect(container.id).get("NetworkSettings") or {}).get("Networks") or {}
        addresses: list[str] = []
        with suppress(AttributeError):
            addresses = [str(network.get("IPAddress") or "") for network in networks.values()]  # type: ignore[attr-defined]
        return Restored(self._with_pid(container), tuple(address for address in addresses if address))
