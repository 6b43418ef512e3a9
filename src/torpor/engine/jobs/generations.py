"""The checkpoints of a job, one beside the other: NAME@1, NAME@2, ...

    STATE/checkpoints/NAME/2/          one checkpoint: the job's note, and its images, or, where the user named another
                                       place for them, ``place.json``; without the note it is not whole, and rubbish
                                       if nobody works on the job
    STATE/checkpoints/NAME/@before     a tag, a link to a number
    STATE/checkpoints/NAME/.last       the last number that was given, which is never given again
    STATE/checkpoints/NAME/.old-2      being removed

What is whole never changes.  It outlives the job: its record, its log, and its ``torpor kill --remove``.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from torpor.base.errors import JobError, UsageError
from torpor.base.fds import OwnedFd, only_files
from torpor.engine.jobs import note
from torpor.engine.jobs.note import Note
from torpor.engine.jobs.places import check_name, checkpoints_directory, names_in
from torpor.engine.sets import settling
from torpor.images.errors import ImageError
from torpor.images.stores.opening import is_stream

_TAG = re.compile(r"(?!\d+$)[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_PLACE, _IMAGES = "place.json", "images"
_MAX_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Generation:
    """One checkpoint.  ``place`` is where its images lie: a directory, or an archive that the user named."""

    name: str
    number: int
    directory: Path
    place: Path
    note: Note
    tags: tuple[str, ...]

    @property
    def label(self) -> str:
        """As a user names it."""
        return f"{self.name}@{self.number}"

    @property
    def is_ours(self) -> bool:
        """Whether its images are kept by us, and go with it."""
        return self.place.parent == self.directory

    @property
    def is_here(self) -> bool:
        """Whether its images are where they were put, and are those."""
        if self.is_ours:
            return True
        if not self.place.is_dir():
            return self.place.is_file()
        with suppress(ImageError):
            found = note.read(self.place)
            return found is not None and found.id == self.note.id
        return False

    @property
    def is_untouched(self) -> bool:
        """Whether nobody else can have changed what we made: it lies among the jobs, or where only we may write."""
        if self.is_ours:
            return True
        with suppress(OSError):
            about = os.stat(self.place, follow_symlinks=False)
            return about.st_uid == os.geteuid() and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        return False

    @property
    def size_bytes(self) -> int:
        """What its files take on disk; 0 where they are gone."""
        with suppress(OSError):
            if self.place.is_dir():
                return sum(entry.stat(follow_symlinks=False).st_blocks for entry in os.scandir(self.place)) * 512
            return self.place.stat().st_blocks * 512
        return 0


def split(word: str) -> tuple[str, str]:
    """``NAME@2`` in two; the second part is empty where a name stands alone."""
    name, at, which = word.partition("@")
    if at and not which:
        raise UsageError(f"{word}: which checkpoint?", hint="NAME@2, or NAME@TAG; `torpor checkpoints` lists them")
    return name, which


def names() -> list[str]:
    """Names of all jobs that may have checkpoints, those among them that are not remembered otherwise."""
    return names_in("checkpoints")


def list_of(name: str) -> list[Generation]:
    """All checkpoints of *name*, the oldest first; one that is damaged is not among them."""
    home = checkpoints_directory(check_name(name))
    try:
        entries = os.listdir(home)
    except (FileNotFoundError, PermissionError):
        return []
    tags: dict[int, list[str]] = {}
    for entry in sorted(entries):
        if entry.startswith("@"):
            with suppress(OSError, ValueError):
                tags.setdefault(int(os.readlink(home / entry)), []).append(entry[1:])
    found = []
    for number in sorted(int(entry) for entry in entries if entry.isdecimal()):
        with suppress(ImageError, OSError):
            if generation := _read(name, number, home / str(number), tuple(tags.get(number, ()))):
                found.append(generation)
    return found


def _read(name: str, number: int, directory: Path, tags: tuple[str, ...]) -> Generation | None:
    about = note.read(directory)
    if about is None or _is_cut_off(directory):
        return None
    place = directory / _IMAGES
    with suppress(FileNotFoundError), open(directory / _PLACE, "rb", opener=only_files) as stream:
        try:
            place = Path(str(json.loads(stream.read(_MAX_BYTES))["path"]))
        except (ValueError, LookupError, TypeError) as error:
            raise ImageError(f"{directory / _PLACE}: {error}") from None
    return Generation(name, number, directory, place, about, tags)


def find(name: str, which: str = "") -> Generation:
    """The checkpoint of *name* with the number or tag *which*, or the newest; JobError if there is none."""
    found = list_of(name)
    if not found:
        raise JobError(f"{name} has no checkpoint")
    if not which:
        return found[-1]
    for generation in found:
        if which in (str(generation.number), *generation.tags):
            return generation
    known = ", ".join("@".join((name, str(each.number))) for each in found[-5:])
    raise JobError(f"{name} has no checkpoint {which}", hint=f"there {'is' if len(found) == 1 else 'are'} {known}")


def gone(generation: Generation) -> JobError:
    """The error that its images are not where they were put."""
    if is_stream(generation.place):
        return JobError(
            f"{generation.label} was written to a stream ({generation.place})",
            hint="restore it from where that has led: torpor restore PATH",
        )
    what = "where something else lies" if generation.place.exists() else "which is gone"
    return JobError(
        f"{generation.label} was written to {generation.place}, {what}",
        hint="restore it from where it is now: torpor restore PATH",
    )


@contextmanager
def reading(generation: Generation) -> Iterator[None]:
    """Nobody removes it meanwhile; JobError where somebody just has."""
    try:
        fd = OwnedFd(os.open(generation.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except FileNotFoundError:
        raise JobError(f"{generation.label} has just been removed") from None
    with fd:
        fcntl.flock(fd.fileno(), fcntl.LOCK_SH)
        if not generation.directory.exists():
            raise JobError(f"{generation.label} has just been removed")
        yield


# -- making --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class New:
    """A checkpoint that is being made in ``directory``; its number counts once it is whole."""

    name: str
    number: int
    directory: Path

    @property
    def images(self) -> Path:
        """For its images, if the user has not named another place for them."""
        return self.directory / _IMAGES

    def commit(self, about: Note, place: Path | None = None) -> None:
        """It is whole; *place* is where its images are, if not in ``directory``.

        Nothing need be on the disk yet, which would take its time just before the job is killed: if the machine goes
        down before it is, the checkpoint does not count (``_is_cut_off``).
        """
        home = self.directory.parent
        if place is not None:
            path = str(place if is_stream(place) else place.absolute())
            (self.directory / _PLACE).write_text(json.dumps({"path": path}) + "\n", encoding="utf-8")
        last = self.directory / ".last"
        last.write_text(f"{self.number}\n", encoding="ascii")
        last.replace(home / ".last")
        note.write(self.directory, about)

    def secure(self) -> None:
        """Have on the disk what ``commit`` has written; OSError."""
        files = [path for path in self.directory.iterdir() if path.is_file()]
        for path in (*files, self.directory, self.directory.parent):
            with OwnedFd(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as fd:
                os.fsync(fd.fileno())

    def discard(self) -> None:
        """Nothing has come of it."""
        _discard(self.directory)


def begin(name: str) -> New:
    """A place for the next checkpoint of *name*, whose lock is ours; what others have left half made is removed."""
    home = checkpoints_directory(check_name(name))
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    sweep(name)
    numbers = [int(entry) for entry in os.listdir(home) if entry.isdecimal()]
    with suppress(FileNotFoundError, ValueError):
        numbers.append(int((home / ".last").read_text(encoding="ascii")))
    number = max(numbers, default=0) + 1
    directory = home / str(number)
    directory.mkdir(mode=0o700)
    return New(name, number, directory)


def sweep(name: str) -> None:
    """Remove what was left half made or half removed of the checkpoints of *name*, whose lock is ours.

    What is whole and only lacks its sums gets them.
    """
    home = checkpoints_directory(name)
    with suppress(FileNotFoundError):
        for entry in os.listdir(home):
            if (entry.isdecimal() and _is_half_made(home / entry)) or entry.startswith((".old-", ".tag-")):
                _remove(home / entry)
            elif entry.isdecimal():
                _complete(home / entry)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_half_made(directory: Path) -> bool:
    try:
        return not (directory / note.NAME).stat().st_size or _is_cut_off(directory)
    except FileNotFoundError:
        return True


def _complete(directory: Path) -> None:
    with (
        suppress(OSError, ImageError),
        OwnedFd(os.open(directory / _IMAGES, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd,
    ):
        settling.complete(fd.fileno())


def _is_cut_off(directory: Path) -> bool:
    """Whether the machine went down before the images in it, that are ours, had all been on the disk."""
    try:
        fd = OwnedFd(os.open(directory / _IMAGES, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError:
        return False
    with fd:
        return settling.is_cut_off(fd.fileno())


# -- removing and naming ---------------------------------------------------------------------------------------------


def remove(generation: Generation) -> None:
    """Remove it and its tags; images that lie where the user wanted them stay.  JobError while somebody reads it."""
    home = generation.directory.parent
    try:
        fd = OwnedFd(os.open(generation.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except FileNotFoundError:
        return
    with fd:
        try:
            fcntl.flock(fd.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JobError(f"{generation.label} is being restored", hint="wait until that is over") from None
        for tag in generation.tags:
            (home / f"@{tag}").unlink(missing_ok=True)
        _discard(generation.directory)


def _discard(directory: Path) -> None:
    home, old = directory.parent, directory.parent / f".old-{directory.name}"
    _remove(old)
    with suppress(FileNotFoundError):
        directory.rename(old)
    _remove(old)
    if not any(entry.isdecimal() for entry in os.listdir(home)):
        shutil.rmtree(home, ignore_errors=True)


def tag(generation: Generation, word: str) -> None:
    """Call it NAME@*word*, too; another checkpoint of the job that was called so is not any more."""
    if not _TAG.fullmatch(word):
        raise JobError(f"{word!r} cannot be a tag", hint="letters, digits, and . _ - after the first; not digits alone")
    home = generation.directory.parent
    temporary = home / f".tag-{os.getpid()}"
    temporary.unlink(missing_ok=True)
    try:
        temporary.symlink_to(str(generation.number))
        temporary.rename(home / f"@{word}")
    finally:
        temporary.unlink(missing_ok=True)


def untag(name: str, word: str) -> None:
    """Forget the tag *word*; JobError if there is none."""
    try:
        (checkpoints_directory(check_name(name)) / f"@{word}").unlink()
    except FileNotFoundError:
        raise JobError(f"{name} has no checkpoint called {word}") from None
