"""Controllers that the groups above a new one of v2 hand on to it: without them it has no files for its limits.

Kernel view
    ``cgroup.subtree_control`` of each group above.  A service manager takes out what nobody below needs any more, and
    so the slice of a unit that has ended hands on less than it did when the unit was dumped.
Image
    Nothing: what a group has properties of it has been given.
Restore
    What the image has properties of is added from the top down, as far as each group has it itself.  A restore that
    fails takes it out again where nobody else has come below.
Limits
    A group with processes of its own hands nothing on; one that somebody manages may be changed back at any time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from torpor.base import log
from torpor.objects.cgroup.model import V2, describe_group
from torpor.objects.cgroup.yard import Yard

_FILE = "cgroup.subtree_control"


class HandedOn:
    """What was added; ``undo`` takes it out."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._added: list[tuple[str, str]] = []

    def add(self, path: str, properties: Iterable[str]) -> None:
        """Have those above the group *path* hand on what it needs for *properties*."""
        wanted = {name.partition(".")[0] for name in properties}
        above = "/"
        for name in path.split("/")[1:]:
            missing = wanted - self._words(above, _FILE)
            if missing and self._may(above):
                for controller in sorted(missing & self._words(above, "cgroup.controllers")):
                    self._add(above, controller)
            above = f"{above.rstrip('/')}/{name}"

    def undo(self) -> None:
        """Take out what was added, where nobody is below any more; what it was for must be gone."""
        while self._added:
            path, controller = self._added.pop()
            try:
                if not self._has_groups(path):
                    self._yard.write(V2, path, _FILE, f"-{controller}")
            except OSError:
                continue  # gone with what we made, or in use by others

    def _may(self, path: str) -> bool:
        """With processes of its own it would become the root of threaded groups, and those below take none any more.

        The machine's root may: it alone has no type.
        """
        return not self._words(path, "cgroup.type") or not self._words(path, "cgroup.procs")

    def _add(self, path: str, controller: str) -> None:
        try:
            self._yard.write(V2, path, _FILE, f"+{controller}")
        except OSError as error:
            log.debug(f"control group {describe_group(V2, path)} hands no {controller} on: {error.strerror}")
        else:
            self._added.append((path, controller))

    def _has_groups(self, path: str) -> bool:
        fd = self._yard.open_dir(V2, path)
        try:
            with os.scandir(fd) as found:
                return any(item.is_dir(follow_symlinks=False) for item in found)
        finally:
            os.close(fd)

    def _words(self, path: str, name: str) -> set[str]:
        place = f"{path.lstrip('/') or '.'}/{name}"
        try:
            fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._yard.root_fd(V2))
        except OSError:
            return set()
        try:
            return set(os.read(fd, 4096).decode().split())
        except OSError:
            return set()  # a threaded one does not tell its processes
        finally:
            os.close(fd)
