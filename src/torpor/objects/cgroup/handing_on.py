"""Controllers that the groups above a new one of v2 hand on to it: without them it has no files for its limits.

Kernel view
    ``cgroup.subtree_control`` of each group above.  A service manager takes out what nobody below needs any more, and
    so the slice of a unit that has ended hands on less than it did when the unit was dumped.
Image
    Nothing: what a group has properties of it has been given.
Restore
    What the image has properties of is added from the top down, as far as each group has it itself.  A restore that
    fails, or is killed, takes it out again where nobody else has come below.
Limits
    A group with processes of its own hands nothing on; one that somebody manages may be changed back at any time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress

from torpor.base import log
from torpor.base.fds import OwnedFd
from torpor.objects.cgroup.model import V2, describe_group
from torpor.objects.cgroup.yard import Yard
from torpor.tracee import caretaker
from torpor.tracee.caretaker import Caretaker

_FILE = "cgroup.subtree_control"


class HandedOn:
    """What was added; ``undo`` takes it out, and a caretaker, which *get_caretaker* gives, where we have died."""

    def __init__(self, yard: Yard, get_caretaker: Callable[[], Caretaker]) -> None:
        self._yard = yard
        self._get_caretaker = get_caretaker
        self._added: list[tuple[OwnedFd, str]] = []

    def add(self, path: str, properties: Iterable[str]) -> None:
        """Have those above the group *path*, which is made after this, hand on what it needs for *properties*."""
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
            group, controller = self._added.pop()
            with group, suppress(OSError):  # gone with what we made, or in use by others
                caretaker.do(caretaker.withhold(group.fileno(), controller))

    def _may(self, path: str) -> bool:
        """With processes of its own it would become the root of threaded groups, and those below take none any more.

        The machine's root may: it alone has no type.
        """
        return not self._words(path, "cgroup.type") or not self._words(path, "cgroup.procs")

    def _add(self, path: str, controller: str) -> None:
        group = OwnedFd(self._yard.open_dir(V2, path))
        keys = self._get_caretaker().add([caretaker.withhold(group.fileno(), controller)])
        try:
            self._yard.write(V2, path, _FILE, f"+{controller}")
        except OSError as error:
            self._get_caretaker().drop(keys)
            group.close()
            log.debug(f"control group {describe_group(V2, path)} hands no {controller} on: {error.strerror}")
        else:
            self._added.append((group, controller))

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
