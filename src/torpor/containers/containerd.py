"""containerd by its ``ctr``: containers in namespaces, checkpoints as images in its store, or exported as one file.

``ctr`` pauses a container for its checkpoint and lets it run on; one that is not to be left running is killed then, so
what it does in between is lost.  Docker's own containers (namespace ``moby``) are left to docker.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from torpor.base.errors import EngineError, UsageError
from torpor.containers.commands import command_of, run
from torpor.containers.model import (
    LIST_TIMEOUT_S,
    Container,
    Restored,
    Runtime,
    Words,
    matching,
    only,
    option_line,
    shim_config,
)
from torpor.images import pack

_COMMAND = "ctr"
_DUMP_WORDS = frozenset({"leave-running", "ignore-rootfs"})
_RESTORE_WORDS = frozenset({"ignore-rootfs", "checkpoint"})
_SOCKET = "/run/containerd/containerd.sock"
#: The part of a checkpoint that holds CRIU's images.
_MEMORY = "application/vnd.containerd.container.criu.checkpoint.criu.tar"
_REFERENCE = "localhost/torpor-checkpoint/"


def name_in(reference: str) -> str:
    """The container's name in the name that ``checkpoint`` gave its image; none in others' names."""
    return reference.removeprefix(_REFERENCE).partition(":")[0] if reference.startswith(_REFERENCE) else ""


class Containerd:
    """ContainerEngine for containerd, by the command ``ctr``."""

    name = "containerd"

    def find(self, word: str) -> list[Container]:
        return matching(self.containers(), word)

    def containers(self) -> list[Container]:
        if not command_of(_COMMAND):
            return []
        if command_of(_COMMAND)[1:] == [] and not os.path.exists(os.environ.get("CONTAINERD_ADDRESS") or _SOCKET):
            # ctr itself waits ten seconds before it says so.
            raise EngineError("containerd does not run")
        found = []
        for namespace in run(_COMMAND, "namespaces", "list", "--quiet", timeout_s=LIST_TIMEOUT_S).split():
            if namespace != "moby":
                found += self._of_namespace(namespace)
        return found

    def _of_namespace(self, namespace: str) -> list[Container]:
        tasks = {}
        for line in run(_COMMAND, "--namespace", namespace, "tasks", "list").splitlines()[1:]:
            name, pid, state = (*line.split(), "", "", "")[:3]
            tasks[name] = (int(pid) if pid.isdigit() else 0, state.lower())
        names = run(_COMMAND, "--namespace", namespace, "containers", "list", "--quiet").split()
        found = []
        for name in names:
            number, now = tasks.get(name, (0, "created"))
            runs = now in ("running", "paused")
            found.append(Container(self.name, name, name, now, number if runs else 0, place=namespace))
        return found

    def restore_archive(self, archive: Path, reference: str, name: str | None, words: Words) -> Restored:
        """Make a container of an exported checkpoint, which the archive calls *reference*."""
        namespace = os.environ.get("CONTAINERD_NAMESPACE") or "default"
        run(_COMMAND, "--namespace", namespace, "images", "import", "--no-unpack", archive.absolute())
        container = Container(self.name, name or name_in(reference), "", "created", place=namespace)
        if any(each.name == container.name and each.runs for each in self._of_namespace(namespace)):
            raise UsageError(f"{container.label} runs already")
        return self.restore(container, [*words, ("checkpoint", reference)])

    def about(self, container: Container) -> Runtime:
        return Runtime("runc", shim_config(container.place, container.id))

    def checkpoint(self, container: Container, output: Path | None, words: Words) -> str:
        option_line(self.name, "checkpoints", words, _DUMP_WORDS)
        given = {name for name, _ in words}
        reference = f"{_REFERENCE}{container.name}:{time.strftime('%Y%m%d-%H%M%S')}"
        begin = ["--namespace", container.place]
        layers = [] if "ignore-rootfs" in given else ["--rw"]
        run(_COMMAND, *begin, "containers", "checkpoint", *layers, "--image", "--task", container.name, reference)
        try:
            self._check_made(container, reference)
            if output is not None:
                # Without Docker's manifest.json, which cannot describe a checkpoint.
                run(_COMMAND, *begin, "images", "export", "--skip-manifest-json", output.absolute(), reference)
                if (how := pack.compression_of(output)) not in (None, "none"):
                    pack.compress(output, str(how))
        except BaseException:
            if output is not None:
                output.unlink(missing_ok=True)
            self._remove(container.place, reference)
            raise
        if output is not None:
            self._remove(container.place, reference)
        if "leave-running" not in given:
            self._stop(container)
        return str(output) if output is not None else f"containerd's image {reference}"

    def restore(self, container: Container, words: Words) -> Restored:
        option_line(self.name, "restores", words, _RESTORE_WORDS)
        wanted = next((value for name, value in words if name == "checkpoint"), None)
        begin = ["--namespace", container.place]
        if wanted is None:
            names = run(_COMMAND, *begin, "images", "list", "--quiet").split()
            ours = sorted(name for name in names if name.startswith(f"{_REFERENCE}{container.name}:"))
            if not ours:
                raise UsageError(
                    f"{container.label} has no checkpoint of torpor's", hint="--checkpoint IMAGE names one"
                )
            wanted = ours[-1]
        layers = [] if any(name == "ignore-rootfs" for name, _ in words) else ["--rw"]
        with suppress(EngineError):
            run(_COMMAND, *begin, "containers", "delete", container.name)
        run(_COMMAND, *begin, "containers", "restore", *layers, "--live", container.name, wanted, to_its_end=True)
        if wanted.startswith(_REFERENCE):
            # As podman does: what it was restored from would be in the way of the next checkpoint.
            self._remove(container.place, wanted)
        return Restored(only(self.name, self._of_namespace(container.place), container.name))

    def _check_made(self, container: Container, reference: str) -> None:
        """EngineError where the checkpoint lacks the processes.

        ``ctr`` (1.6 and later) takes it for no error if a part of it, such as the specification, is in the store
        already from a checkpoint before, but then leaves out the rest.
        """
        begin = ["--namespace", container.place]
        rows = [line.split() for line in run(_COMMAND, *begin, "images", "list", f"name=={reference}").splitlines()]
        digest = next((row[2] for row in rows if row and row[0] == reference), "")
        if not digest or _MEMORY not in run(_COMMAND, *begin, "content", "get", digest):
            raise EngineError(
                f"ctr left the processes out of the checkpoint of {container.label}, which runs on",
                hint="its store holds an older checkpoint of it: ctr images remove --sync IMAGE",
            )

    def _remove(self, namespace: str, reference: str) -> None:
        """Take an image away with all that only it has."""
        with suppress(EngineError):
            run(_COMMAND, "--namespace", namespace, "images", "remove", "--sync", reference)

    def _stop(self, container: Container) -> None:
        begin = ["--namespace", container.place, "tasks"]
        run(_COMMAND, *begin, "kill", "--signal", "SIGKILL", "--all", container.name)
        for _ in range(50):
            with suppress(EngineError):
                run(_COMMAND, *begin, "delete", container.name)
                return
            time.sleep(0.1)
        raise EngineError(f"{container.label} was checkpointed, but does not end")
