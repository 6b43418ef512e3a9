"""One file of a container's checkpoint, for engines that write directories (runc, crun, LXC, Docker).

The engine writes a directory beside the file, which becomes the file and is removed.  If that fails and the container
is gone already, the directory stays, and is said to be what it is restored from.  Whether there is room for both is
looked at first.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from torpor.base.errors import EngineError, UsageError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.containers import docker, note, space, waking
from torpor.containers.model import Container, ContainerEngine, Restored, Words
from torpor.engine.destination import coming_from
from torpor.engine.jobs import state_directory
from torpor.images import pack
from torpor.images.errors import ImageError
from torpor.kernel.procfs.task import is_dying

#: Those whose checkpoints are directories of plain files, and where in them these lie.
ENGINES = {"runc": "", "crun": "", "lxc": "", "docker": docker.FOLDER}


def is_wanted(container: Container, output: Path | None) -> bool:
    """Whether *output* names one file, and the engine writes none."""
    return output is not None and pack.compression_of(output) is not None and container.engine in ENGINES


def checkpoint(engine: ContainerEngine, container: Container, output: Path, words: Words) -> str:
    """Checkpoint *container* into the file *output*; what to say of where it is."""
    how = pack.compression_of(output) or "none"
    images, made = output.with_name(f"{output.name}.images"), output.with_name(f"{output.name}.new")
    _check_free((images, made))
    if output.is_dir():
        raise UsageError(f"{output} is a directory")
    _check_space(container, output, how)
    folder = images / ENGINES[container.engine]
    try:
        engine.checkpoint(container, images, words)
    except EngineError:
        # Of one that has ended it may be all that there is.
        if _runs_on(container) and not os.path.lexists(folder / "inventory.img"):
            shutil.rmtree(images, ignore_errors=True)
        raise
    try:
        if folder != images:
            note.write(folder, container)
        pack.write(folder, made, how)
        made.replace(output)
        with OwnedFd(os.open(output.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as home:
            os.fsync(home.fileno())
    except BaseException as error:
        made.unlink(missing_ok=True)
        if _runs_on(container):
            shutil.rmtree(images, ignore_errors=True)
            error.add_note(f"{container.label} runs on")
            raise
        told = f"{container.label} is in {images}: `torpor restore {images}` wakes it"
        if isinstance(error, ImageError | OSError):
            raise EngineError(f"{error}; {told}") from None
        error.add_note(told)
        raise
    shutil.rmtree(images, ignore_errors=True)
    return str(output)


def _runs_on(container: Container) -> bool:
    return bool(container.pid) and not is_dying(Pid(container.pid))


def _check_free(places: Sequence[Path]) -> None:
    for place in places:
        if os.path.lexists(place):
            raise UsageError(
                f"{place} is there, from a torpor that was killed", hint="look at it, then rename or remove it"
            )


def _check_space(container: Container, output: Path, how: str) -> None:
    """RefusedError if there is no room for both."""
    if not container.pid:
        return
    place, n_bytes = output.absolute().parent, space.memory_of(container.pid)
    packed = space.archive_size(n_bytes, is_compressed=how != "none", is_lost=False)
    needs = [space.Need(place, "the images", n_bytes), space.Need(place, "the archive", packed)]
    space.check(container.label, needs, is_lost=False)


def restore(path: Path, name: str | None, n_copies: int, words: Words) -> list[Restored]:
    """The container that the file *path* is a checkpoint of."""
    with coming_from(path, state_directory()) as images:
        told = note.read(images)
        if told is None:
            raise ImageError(f"{path}: says not what container it is of")
        return waking.restore_directory(images, told, name, n_copies, words)
