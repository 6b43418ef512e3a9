"""Files of its image that a container has changed, and that Podman's archive leaves out.

Podman (seen in 4.3) asks for the path on the host, not in the container, before it takes a changed file into
``rootfs-diff.tar``: what the host does not have is left out, and the restored container has the image's file again.
Such files are kept by a link from the moment before the checkpoint, so that they are there even when the container has
been removed, and added to the archive.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from torpor.base import log
from torpor.engine import scratch
from torpor.images import pack
from torpor.images.errors import ImageError
from torpor.images.tarstream import iter_members, open_compressed

_DIFF = "rootfs-diff.tar"
_MAX_CHANGES = 1 << 20
_PAX_ATTRIBUTE = "SCHILY.xattr."


@dataclass(frozen=True, slots=True)
class Kept:
    """One changed file: its path in the container, and a link to it."""

    path: str
    link: Path


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What Podman may leave out of an archive; ``unknown`` could not be kept."""

    kept: tuple[Kept, ...]
    unknown: tuple[str, ...]
    room: Path | None

    def add_to(self, archive: Path) -> None:
        """Add to *archive* what it does not hold of these, and say what cannot be added."""
        if not self.kept and not self.unknown:
            return
        there = _paths_in(archive)
        missing = [each for each in self.kept if each.path not in there]
        if lost := [path for path in self.unknown if path not in there]:
            log.warn(f"{archive} does not hold what was changed in {', '.join(sorted(lost))}: podman has left it out")
        if missing and self.room is not None:
            _add(archive, missing, self.room)


@contextmanager
def kept(told: Mapping[str, Any], changed: Sequence[str]) -> Iterator[LeftOut]:
    """Hold on to the files among *changed* that Podman will leave out, of the container that it has *told* of."""
    absent = [path for path in changed if path.startswith("/") and not os.path.exists(path)]
    upper = Path(str(told.get("GraphDriver", {}).get("Data", {}).get("UpperDir", "")))
    if not absent:
        yield LeftOut((), (), None)
        return
    if not upper.is_absolute() or not upper.is_dir():
        yield LeftOut((), tuple(absent), None)
        return
    with scratch.directory(upper.parent.parent) as room:
        found, unknown = [], []
        for number, path in enumerate(absent):
            link = room / str(number)
            try:
                if _link(upper, path, link):
                    found.append(Kept(path, link))
            except OSError as error:
                log.warn(f"{path}: {error.strerror}")
                unknown.append(path)
        yield LeftOut(tuple(found), tuple(unknown), room)


def _link(upper: Path, path: str, link: Path) -> bool:
    """Make the link, unless it is no file; nothing on the way to it may be a link of the container's."""
    parts = path.strip("/").split("/")
    fd = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = inner
        mode = os.stat(parts[-1], dir_fd=fd, follow_symlinks=False).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
            return False  # directories, of which podman takes none, and what has been deleted
        os.link(parts[-1], link, src_dir_fd=fd, follow_symlinks=False)
        return True
    finally:
        os.close(fd)


def _paths_in(archive: Path) -> set[str]:
    """The paths of the changes that an archive holds."""
    with open_compressed(archive) as (stream, _):
        for member, content in iter_members(stream):
            if member.place == _DIFF:
                inner = (f"/{each.place}" for each, _ in iter_members(content))
                return {path for path, _ in zip(inner, range(_MAX_CHANGES), strict=False)}
    return set()


def _add(archive: Path, missing: Sequence[Kept], room: Path) -> None:
    """Write the archive anew, with these in its changes; it is as it was if that fails."""
    made, diff = archive.with_name(f".{archive.name}.torpor-more"), room / _DIFF
    try:
        with open_compressed(archive) as (stream, how), pack.writer(made, how) as sink:
            with (
                tarfile.open(fileobj=cast("BinaryIO", stream), mode="r|") as old,
                tarfile.open(fileobj=cast("BinaryIO", sink), mode="w|", format=tarfile.PAX_FORMAT) as new,
            ):
                for member in old:
                    content = old.extractfile(member)
                    if member.name.removeprefix("./") == _DIFF and content is not None:
                        with diff.open("wb") as copy:
                            shutil.copyfileobj(content, copy)
                    else:
                        new.addfile(member, content)
                _append(diff, missing)
                new.add(diff, _DIFF)
        made.replace(archive)
    except BaseException as error:
        made.unlink(missing_ok=True)
        if not isinstance(error, OSError | tarfile.TarError | ImageError):
            raise
        names = ", ".join(each.path for each in missing)
        log.warn(f"{archive} does not hold what was changed in {names}: podman has left it out; adding it: {error}")


def _append(diff: Path, missing: Sequence[Kept]) -> None:
    with tarfile.open(diff, "a", format=tarfile.PAX_FORMAT) as changes:
        for each in missing:
            info = changes.gettarinfo(each.link, each.path.lstrip("/"))
            if info.islnk():
                info.type = tarfile.REGTYPE  # our own link to it is none of the container's
                info.size = os.lstat(each.link).st_size
            info.uname = info.gname = ""
            attributes: dict[str, str] = {}
            with suppress(OSError):
                for name in os.listxattr(each.link, follow_symlinks=False):
                    if not name.startswith("trusted.overlay."):
                        value = os.getxattr(each.link, name, follow_symlinks=False)
                        attributes[_PAX_ATTRIBUTE + name] = value.decode("utf-8", "surrogateescape")
            info.pax_headers = attributes
            if info.isreg():
                with each.link.open("rb") as content:
                    changes.addfile(info, content)
            else:
                changes.addfile(info)
