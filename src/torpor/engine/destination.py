"""Where a checkpoint goes, and where it comes from: a directory; one file, by its name (``.tar.zst``, ``.tar.gz``,
``.tar``); a stream (``-``, or a FIFO with such a name).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from torpor.base.errors import UsageError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.engine import scratch
from torpor.engine.options import nothing
from torpor.engine.sets.settling import settle_path
from torpor.engine.sets.writing import add_sums
from torpor.images import pack
from torpor.images.stores.copying import copy
from torpor.images.stores.opening import Location, is_stream, open_store
from torpor.kernel import rename
from torpor.kernel.procfs.task import is_dying


@contextmanager
def going_to(
    place: Location, pid: int = 0, *, leave_running: bool = False
) -> Iterator[tuple[Location, Callable[[str], None]]]:
    """What to dump into, and what is to be done once the images are whole, given where they are just then.

    An archive is made while the processes are still there: if there is no room for it, nothing is lost.  If anything
    fails later and *pid*, the root, runs on, the archive is gone and an earlier one of its name is back.  A stream may
    take as long as its reader likes; whoever is to run on does not wait for that.
    """
    if not isinstance(place, str | os.PathLike):
        yield place, nothing
        return
    output = Path(place)
    if is_stream(output):
        with _stream(output, leave_running) as stream:
            yield stream
        return
    how = pack.compression_of(output)
    if how is None:
        yield output, nothing
        return
    if output.is_dir():
        raise UsageError(f"{output} is a directory", hint="an archive is a file; leave out the suffix, or another name")
    with (
        scratch.directory(output.absolute().parent) as room,
        OwnedFd(os.open(output.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as home,
    ):
        made = room / output.name
        placed: list[os.stat_result] = []

        def finish(images: str) -> None:
            with OwnedFd(os.open(images, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as whole:
                add_sums(whole.fileno())
            pack.write(Path(images), made, how)
            placed.append(made.lstat())
            _put(home.fileno(), made, output)
            os.fsync(home.fileno())

        try:
            yield room / "images", finish
        except BaseException:
            if placed and (leave_running or (pid and not is_dying(Pid(pid)))):
                _take_back(made, output, placed[0])
            raise


def _put(home: int, made: Path, output: Path) -> None:
    """Put *made* into its place in the directory *home*; an earlier file of that name is where it was, if possible."""
    with suppress(OSError):
        if not stat.S_ISDIR(output.lstat().st_mode):
            rename.exchange(home, f"{made.parent.name}/{made.name}", output.name)
            return
    made.replace(output)


def _take_back(made: Path, output: Path, placed: os.stat_result) -> None:
    """The same backwards, if it is there still."""
    with suppress(OSError):
        if os.path.samestat(output.lstat(), placed):
            if os.path.lexists(made):
                made.replace(output)
            else:
                output.unlink()


@contextmanager
def _stream(output: Path, leave_running: bool) -> Iterator[tuple[Location, Callable[[str], None]]]:
    with scratch.directory(_waiting_room()) as room, open_store(output, "w", spool=room) as store:
        if not leave_running:
            yield store, nothing
            return

        def finish(images: str) -> None:
            with open_store(images) as whole:
                copy(whole, store)

        yield room / "images", finish


def _waiting_room() -> Path:
    from torpor.engine.jobs.places import state_directory

    return state_directory() / "unpacked"


@contextmanager
def opened(location: Location) -> Iterator[Location]:
    """The images there: a directory, or a store for those of an archive or a stream, which has been read then."""
    if not isinstance(location, str | os.PathLike):
        yield location
        return
    place = Path(location)
    if not is_stream(place) and not place.is_file():
        # What lies beside the images is read before they are: it is to be of the same set.
        settle_path(place)
        if place.is_dir():
            yield place
            return
    with scratch.directory(_waiting_room()) as room, open_store(place, spool=room) as store:
        yield store


@contextmanager
def coming_from(place: Path, state: Path) -> Iterator[Path]:
    """The directory with the images of *place*; those of an archive are unpacked below *state* and gone afterwards."""
    if not place.is_file():
        # What lies beside the images is read before they are: it is to be of the same set.
        settle_path(place)
    if place.is_dir():
        yield place
        return
    with scratch.directory(state / "unpacked") as room:
        pack.unpack(place, room)
        yield room
