"""Control groups as directories: the heads that tasks are in or below, with all that is under them.

Kernel view
    A directory a group; a group of v1's root, or v2's, is everybody's and has nothing of ours.
Image
    ``cg_controller_entry``, one a hierarchy: the names of its controllers and a tree of ``cgroup_dir_entry`` for each
    head, whose name is its whole path without the slash; names below are relative.
    Groups below a head that have tasks, and none of the tree's in or below them, are others', and left out.  Empty ones
    may be the tree's.
Restore
    Directories that are missing are made, parents first, with their owner, mode and EARLY properties.  What becomes
    of one that is there is up to the mode: SOFT and NONE leave it as it is, PROPS and FULL set its properties, STRICT
    refuses it; NONE and PROPS refuse one that is missing.  One that has tasks, and is to get none of the tree's, is
    never changed.  Other properties are for when the tasks are there.  A restore that fails or is killed removes what
    it made.
Limits
    Extended attributes of a group are not carried.  A group that is removed while the tree is read is left out; what
    comes or goes afterwards makes the dump read it once more.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.records import dataclass, field
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.text import get_text, set_text
from torpor.objects.cgroup import model, properties
from torpor.objects.cgroup.handing_on import HandedOn
from torpor.objects.cgroup.membership import Member
from torpor.objects.cgroup.model import describe_group
from torpor.objects.cgroup.properties import Table
from torpor.objects.cgroup.yard import Yard
from torpor.tracee.caretaker import Caretaker, remove

_MODE = 0o755
_ATTEMPTS = 50
_PAUSE_S = 0.01


# -- dump ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Snapshot:
    """One hierarchy as it was read: its heads, and how many directories each one had below it."""

    hierarchy: str
    heads: dict[str, m.cgroup_dir_entry] = field(default_factory=dict)
    _links: dict[str, int] = field(default_factory=dict)

    def read(self, path: str, yard: Yard, table: Table) -> None:
        """Read the head *path* and all below it; nothing but its name of a hierarchy's root.  OSError."""
        entry = m.cgroup_dir_entry()
        set_text(entry, "dir_name", path[1:])
        self.heads[path] = entry
        if path == "/":
            return
        fd = yard.open_dir(self.hierarchy, path)
        try:
            self._fill(entry, fd, path, table.of(self.hierarchy))
        finally:
            os.close(fd)

    def has_changed(self, yard: Yard) -> bool:
        """Whether directories have come or gone since.  OSError."""
        root = yard.root_fd(self.hierarchy) if self._links else -1
        return any(os.stat(path[1:], dir_fd=root).st_nlink != n for path, n in self._links.items())

    def leave_out_others(self, members: Iterable[str], yard: Yard) -> None:
        """Forget the groups of others, where the tree's tasks are in *members*.  OSError."""
        found = list(members)
        for path, entry in self.heads.items():
            self._leave_out(entry, path, found, yard)

    def _leave_out(self, entry: m.cgroup_dir_entry, path: str, members: list[str], yard: Yard) -> None:
        for at, child in reversed(list(enumerate(entry.children))):
            below = f"{path}/{get_text(child.dir_name)}"
            if any(model.is_below(member, below) for member in members):
                self._leave_out(child, below, members, yard)
            elif _has_tasks(yard, self.hierarchy, below):
                log.info(f"control group {describe_group(self.hierarchy, below)} is left out: others are in it")
                del entry.children[at]

    @property
    def is_threaded(self) -> bool:
        """Whether threads of one process may be in several of its groups."""
        return self.hierarchy != model.V2 or any(_has_threaded(entry) for entry in self.heads.values())

    def _fill(self, entry: m.cgroup_dir_entry, fd: int, path: str, names: list[str]) -> None:
        info = os.fstat(fd)
        self._links[path] = info.st_nlink
        entry.dir_perms.CopyFrom(m.cgroup_perms(mode=info.st_mode, uid=info.st_uid, gid=info.st_gid))
        entry.properties.extend(properties.dump(fd, names))
        with os.scandir(fd) as found:
            children = sorted(item.name for item in found if item.is_dir(follow_symlinks=False))
        for name in children:
            try:
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
            except FileNotFoundError:
                continue  # removed meanwhile
            try:
                child = entry.children.add()
                set_text(child, "dir_name", name)
                self._fill(child, below, f"{path}/{name}", names)
            finally:
                os.close(below)


def _has_threaded(entry: m.cgroup_dir_entry) -> bool:
    if any(prop.name == "cgroup.type" and prop.value == "threaded" for prop in entry.properties):
        return True
    return any(_has_threaded(child) for child in entry.children)


def _has_tasks(yard: Yard, hierarchy: str, path: str) -> bool:
    """Whether anybody is in a group or below it; of one that is gone, nobody."""
    try:
        fd = yard.open_dir(hierarchy, path)
    except FileNotFoundError:
        return False
    try:
        if hierarchy == model.V2:
            return b"populated 1" in _read(fd, "cgroup.events")
        if _read(fd, "cgroup.procs"):
            return True
        with os.scandir(fd) as found:
            below = [item.name for item in found if item.is_dir(follow_symlinks=False)]
    finally:
        os.close(fd)
    return any(_has_tasks(yard, hierarchy, f"{path}/{name}") for name in below)


def _read(directory: int, name: str) -> bytes:
    """Its beginning; nothing if the group is gone."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return b""
    try:
        return os.read(fd, 4096)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return b""
    finally:
        os.close(fd)


def topmost(paths: Iterable[str]) -> list[str]:
    """Those that are below no other; a hierarchy's root counts for itself only."""
    found: list[str] = []
    for path in sorted(set(paths)):
        if not any(top != "/" and model.is_below(path, top) for top in found):
            found.append(path)
    return found


def domain_of(path: str, yard: Yard) -> str:
    """Where the processes are that have threads in the group *path* of v2: itself, or what is above threaded ones.

    That is never the hierarchy's root, which is everybody's.
    """
    while (above := path.rpartition("/")[0]) and _type_of(path, yard) == "threaded":
        path = above
    return path


def _type_of(path: str, yard: Yard) -> str:
    try:
        fd = os.open(f"{path[1:]}/{properties.TYPE}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=yard.root_fd(model.V2))
    except OSError:
        return ""  # removed meanwhile
    try:
        return os.read(fd, 64).decode().strip()
    finally:
        os.close(fd)


# -- restore -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Group:
    """A group of the image, by its whole path, that is to get properties."""

    hierarchy: str
    path: str
    entry: m.cgroup_dir_entry


class Maker:
    """Makes what is missing; ``undo`` removes it again."""

    def __init__(self, yard: Yard, mode: str, members: Iterable[Member]) -> None:
        self._yard = yard
        self._mode = mode
        self._members = [(member.hierarchy, member.path) for member in members]
        self._made: list[tuple[str, str]] = []
        self._held: list[_Group] = []
        self._to_set: list[_Group] = []
        self._heads: set[str] = set()
        self._handed_on = HandedOn(yard, self._get_caretaker)
        self._caretaker: Caretaker | None = None

    def make(self, controller: m.cg_controller_entry, held: str | None = None) -> None:
        """All groups of one hierarchy.  RestoreError.

        What is below *held*, and what that group does for those below it, waits for ``make_held`` and ``set_held``: of
        v2, a group that hands its controllers on takes no tasks, and one is to be in there first.
        """
        hierarchy = ",".join(controller.cnames)
        for head in controller.dirs:
            self._heads.add(model.normal(get_text(head.dir_name)))
            for path, entry in _iter_tree(head, ""):
                for prop in entry.properties:
                    properties.check_name(prop.name, hierarchy)
                group = _Group(hierarchy, path, entry)
                if held is not None and model.is_below(path, held):
                    self._held.append(group)
                    if path == held and not self._exists(hierarchy, path):
                        self._make_missing(group)
                elif path != "/":
                    self._make_one(group)

    def make_held(self) -> None:
        """What ``make`` has left, as directories that take tasks.  RestoreError."""
        held, self._held = self._held, []
        for group in held:
            if group.path != "/" and self._is_to_set(group):
                self._set_perms(group)
                self._set(group, lambda name: name == properties.TYPE)
                self._held.append(group)

    def set_held(self) -> None:
        """The rest of it, when nobody is any more in a group that hands its controllers on.  RestoreError."""
        for group in self._held:
            self._set_early(group)
            self._to_set.append(group)
        self._held.clear()

    def set_properties(self) -> None:
        """All that are neither EARLY nor LAST.  RestoreError."""
        for group in self._to_set:
            self._set(group, lambda name: name not in properties.EARLY and name not in properties.LAST)

    def freeze(self) -> None:
        """What was frozen becomes so again; from now on its tasks do nothing any more.  RestoreError."""
        for group in self._to_set:
            self._set(group, lambda name: name in properties.LAST)

    def undo(self) -> None:
        """Remove what was made; its tasks must be gone."""
        for hierarchy, path in reversed(self._made):
            try:
                _remove(self._yard.root_fd(hierarchy), path.lstrip("/"))
            except OSError as error:
                log.warn(f"control group {describe_group(hierarchy, path)} is left behind: {error.strerror}")
        self._made.clear()
        self._handed_on.undo()

    def close(self) -> None:
        """Nothing more is made; our death changes nothing from here on."""
        if self._caretaker is not None:
            self._caretaker.dismiss()
            self._caretaker = None

    def _make_one(self, group: _Group) -> None:
        if self._is_to_set(group):
            self._set_perms(group)
            self._set_early(group)
            self._to_set.append(group)

    def _is_to_set(self, group: _Group) -> bool:
        """Whether its properties are to be set; it is there then, made if need be."""
        if (group.hierarchy, group.path) in self._made:
            return True
        if not self._exists(group.hierarchy, group.path) and self._make_missing(group):
            return True
        if self._mode == model.STRICT:
            where = describe_group(group.hierarchy, group.path)
            raise RestoreError(f"control group {where} is there already", hint="remove it, or do without strict")
        return self._mode in (model.PROPS, model.FULL) and not self._is_others(group)

    def _is_others(self, group: _Group) -> bool:
        hierarchy, path = group.hierarchy, group.path
        if any(name == hierarchy and model.is_below(member, path) for name, member in self._members):
            return False
        return _has_tasks(self._yard, hierarchy, path)

    def _make_missing(self, group: _Group) -> bool:
        """Whether it has been made: somebody else may come before us."""
        if self._mode in (model.NONE, model.PROPS):
            raise RestoreError(
                f"control group {describe_group(group.hierarchy, group.path)} is not there",
                hint=f"make it first; --manage-cgroups={self._mode} does not",
            )
        self._make_parents(group.hierarchy, group.path)
        # Below a head it is the image that says what is handed on, and when.  Told to the caretaker before the group
        # is, it is undone after that.
        if group.hierarchy == model.V2 and group.path in self._heads:
            self._handed_on.add(group.path, (entry.name for entry in group.entry.properties))
        return self._make_dir(group.hierarchy, group.path)

    def _exists(self, hierarchy: str, path: str) -> bool:
        try:
            os.stat(path.lstrip("/"), dir_fd=self._yard.root_fd(hierarchy))
        except FileNotFoundError:
            return False
        return True

    def _make_parents(self, hierarchy: str, path: str) -> None:
        above = path.rpartition("/")[0]
        if above and not self._exists(hierarchy, above):
            self._make_parents(hierarchy, above)
            if self._make_dir(hierarchy, above):
                self._inherit_cpus(hierarchy, above)

    def _make_dir(self, hierarchy: str, path: str) -> bool:
        """Whether it is ours to remove; False if somebody else has made it since we looked."""
        root = self._yard.root_fd(hierarchy)
        keys = self._get_caretaker().add([remove(root, path.lstrip("/"))])
        try:
            os.mkdir(path.lstrip("/"), _MODE, dir_fd=root)
        except FileExistsError:
            self._get_caretaker().drop(keys)
            return False
        except OSError as error:
            raise RestoreError(
                f"control group {describe_group(hierarchy, path)} cannot be made: {error.strerror}",
                hint="--cgroup-root puts it elsewhere, --manage-cgroups=ignore does without",
            ) from None
        self._made.append((hierarchy, path))
        return True

    def _get_caretaker(self) -> Caretaker:
        if self._caretaker is None:
            self._caretaker = Caretaker()
        return self._caretaker

    def _inherit_cpus(self, hierarchy: str, path: str) -> None:
        """Of a group of which the image does not say it: in v1's cpuset one without any processors takes no tasks."""
        if "cpuset" not in hierarchy.split(","):
            return
        above = path.rpartition("/")[0]
        for name in ("cpuset.cpus", "cpuset.mems"):
            fd = os.open(f"{above.lstrip('/') or '.'}/{name}", os.O_RDONLY, dir_fd=self._yard.root_fd(hierarchy))
            try:
                value = os.read(fd, 4096).decode()
            finally:
                os.close(fd)
            self._yard.write(hierarchy, path, name, value)

    def _set_perms(self, group: _Group) -> None:
        if not group.entry.HasField("dir_perms"):
            return
        perms = group.entry.dir_perms
        fd = self._yard.open_dir(group.hierarchy, group.path)
        try:
            os.fchown(fd, perms.uid, perms.gid)
            os.fchmod(fd, perms.mode & 0o777)
        finally:
            os.close(fd)

    def _set_early(self, group: _Group) -> None:
        if not any(entry.name == "cpuset.cpus" for entry in group.entry.properties):
            self._inherit_cpus(group.hierarchy, group.path)
        self._set(group, lambda name: name in properties.EARLY)

    def _set(self, group: _Group, wanted: Callable[[str], bool]) -> None:
        entries = [entry for entry in group.entry.properties if wanted(entry.name)]
        if not entries:
            return
        fd = self._yard.open_dir(group.hierarchy, group.path)
        try:
            where = describe_group(group.hierarchy, group.path)
            properties.restore(fd, entries, where, lenient=self._mode == model.SOFT)
        finally:
            os.close(fd)


def _iter_tree(entry: m.cgroup_dir_entry, above: str) -> Iterator[tuple[str, m.cgroup_dir_entry]]:
    name = get_text(entry.dir_name)
    if ".." in name.split("/"):
        raise ImageError(f"cgroup.img: a group is called {name}")
    path = model.normal(f"{above}/{name}")
    yield path, entry
    for child in entry.children:
        yield from _iter_tree(child, path)


def _remove(root: int, path: str) -> None:
    """A group whose last task is just dying is busy until it is dead, which nobody tells."""
    import time

    for _ in range(_ATTEMPTS):
        try:
            os.rmdir(path, dir_fd=root)
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        time.sleep(_PAUSE_S)
    os.rmdir(path, dir_fd=root)
