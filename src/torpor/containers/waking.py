"""Restoring containers from what a user names: an archive, a directory with a note, a checkpoint image, a container.

Several copies of one archive run side by side, each with a name and addresses of its own.  Either all of them run
afterwards or none: what was made before one failed is removed again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from torpor.base.errors import EngineError, TorporError, UsageError
from torpor.containers import archive, containerd, left_locked, note, overview, pods
from torpor.containers.commands import run
from torpor.containers.model import Container, Restored, Words
from torpor.containers.names import CONTAINERD, DOCKER, ENGINES, LXC, PODMAN
from torpor.containers.oci import CRUN, RUNC
from torpor.containers.podman import SHM_COPY


def restore_archive(path: Path, name: str | None, n_copies: int, words: Words) -> list[Restored]:
    """Podman's containers from its archive, one or *n_copies* called NAME1, NAME2, ...; or containerd's one."""
    documents = archive.peek(path)
    own_name = overview.name_in(documents)
    if own_name is None:
        reference = overview.reference_in(documents)
        if not containerd.name_in(reference):
            raise EngineError(f"{path} is no checkpoint of a container", hint="`torpor inspect` shows what it is")
        if n_copies != 1:
            raise UsageError("containerd makes no copies: they would share a control group")
        return [CONTAINERD.restore_archive(path, reference, name, words)]
    return _copies(lambda each: PODMAN.restore_archive(path, own_name, each, words), name, own_name, n_copies)


def restore_image(image: str, name: str | None, n_copies: int, words: Words) -> list[Restored]:
    """Podman containers from a checkpoint image."""
    own_name = image.rpartition("/")[2].partition(":")[0]
    return _copies(lambda each: PODMAN.restore_image(image, each, words), name, own_name, n_copies)


def restore_directory(
    directory: Path, told: note.Note, name: str | None, n_copies: int, words: Words
) -> list[Restored]:
    """The container that a note in *directory* names, from the images beside it."""
    if n_copies != 1:
        raise UsageError(f"{told.engine} cannot make copies of a container: they would share its root directory")
    if told.engine in ("runc", "crun"):
        runtime = RUNC if told.engine == "runc" else CRUN
        table = left_locked.table_of(directory)
        restored = runtime.restore_directory(directory, told, name, words)
        left_locked.let_go(restored.container, table)
        return [restored]
    if name not in (None, told.name):
        raise UsageError(f"{told.engine} restores a container under its own name only, {told.name}")
    if told.engine == "docker":
        return [DOCKER.restore_directory(directory, told, words)]
    if told.engine == "lxc":
        return [LXC.restore_directory(directory, told, words)]
    raise EngineError(f"{directory} names {told.engine}, from which torpor cannot restore a directory")


def restore_stored(container: Container, words: Words) -> list[Restored]:
    """A container from the checkpoint that its engine keeps."""
    if container.runs:
        raise UsageError(
            f"{container.label} runs already", hint="a copy beside it comes from an archive: -o FILE first"
        )
    return [wake(container, words)]


def wake(container: Container, words: Words) -> Restored:
    """The same, whatever its state was said to be; in a pod's network all comes through again that a migration held."""
    if container.engine != PODMAN.name or not container.pod:
        return ENGINES[container.engine].restore(container, words)
    place = PODMAN.stored_checkpoint(container)
    table = left_locked.table_of(place / "checkpoint")
    if left_locked.shares_shm(container, table):
        # Podman would put a second copy into the pod's /dev/shm, in the place of files that others have mapped; what
        # they hold has been there all the time.
        (place / SHM_COPY).unlink(missing_ok=True)
    restored = PODMAN.restore(container, words)
    left_locked.let_go(restored.container, table)
    return restored


def restore_pod(name: str, words: Words) -> list[Restored]:
    """Those containers of a pod that sleep in Podman's storage; the others run on."""
    told = json.loads(run(PODMAN.name, "pod", "inspect", name))
    inside = {str(each["Id"]) for each in (told[0] if isinstance(told, list) else told).get("Containers") or ()}
    asleep = [each for each in PODMAN.containers() if each.id in inside and not each.runs]
    asleep = [each for each in asleep if PODMAN.is_asleep(each)]
    if not asleep:
        raise UsageError(f"nothing of {pods.PREFIX}{name} sleeps in podman's storage")
    made: list[Restored] = []
    for container in asleep:
        try:
            made.append(wake(container, words))
        except TorporError as error:
            others = ", ".join(each.label for each in asleep[len(made) :])
            error.add_note(f"{others} {'sleeps' if len(made) + 1 == len(asleep) else 'sleep'} still")
            raise
    return made


def _copies(
    restore: Callable[[str | None], Restored], name: str | None, own_name: str, n_copies: int
) -> list[Restored]:
    if n_copies == 1:
        return [restore(name)]
    made: list[Restored] = []
    try:
        for number in range(1, n_copies + 1):
            made.append(restore(f"{name or own_name}{number}"))
    except BaseException as error:
        for each in made:
            with suppress(EngineError):
                PODMAN.remove(each.container)
        if isinstance(error, EngineError) and made:
            error.add_note(f"the {len(made)} copies made before are gone again")
        raise
    return made
