"""Id maps of user namespaces, see user_namespaces(7); and whom the files belong to that a thread of ours makes.

``/proc/PID/uid_map`` and ``gid_map`` show the outer ids as the *reader's* user namespace has them, whatever lies
between.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torpor.base.ids import Pid
from torpor.base.records import dataclass
from torpor.kernel.arch import nr
from torpor.kernel.procfs.small import read_small
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.prctl import PR_GET_DUMPABLE, PR_SET_DUMPABLE

#: What no user and no group has.
NO_ID = 0xFFFFFFFF
_CAPABILITY_VERSION_3 = 0x20080522


@dataclass(frozen=True, slots=True)
class Extent:
    """*count* ids from *first* on inside, which are *outer* and so on outside."""

    first: int
    outer: int
    count: int


@dataclass(frozen=True, slots=True)
class IdMap:
    """The map of users, or that of groups."""

    extents: tuple[Extent, ...]

    def inside(self, ident: int) -> int:
        """The id in the namespace of one of ours; NO_ID for one that is not mapped."""
        for each in self.extents:
            if each.outer <= ident < each.outer + each.count:
                return each.first + ident - each.outer
        return NO_ID

    def outside(self, ident: int) -> int:
        """Our id of one in the namespace; NO_ID for one that is not mapped."""
        for each in self.extents:
            if each.first <= ident < each.first + each.count:
                return each.outer + ident - each.first
        return NO_ID

    @property
    def head(self) -> int:
        """The id inside that is in charge: 0, or the first there is where 0 is not mapped."""
        if self.outside(0) != NO_ID or not self.extents:
            return 0
        return min(each.first for each in self.extents)


@dataclass(frozen=True, slots=True)
class IdMaps:
    """The maps of a user namespace; that of project ids, of file systems' quota, only where it is asked for."""

    users: IdMap
    groups: IdMap
    projects: IdMap = IdMap(())

    def inside(self, user: int, group: int) -> tuple[int, int]:
        """An owner as the namespace has it."""
        return self.users.inside(user), self.groups.inside(group)

    def outside(self, user: int, group: int) -> tuple[int, int]:
        """An owner as we have it; -1, which chown(2) leaves alone, for what is not mapped."""
        found = self.users.outside(user), self.groups.outside(group)
        return (-1 if found[0] == NO_ID else found[0], -1 if found[1] == NO_ID else found[1])


_SAME = IdMap((Extent(0, 0, NO_ID),))
#: Those of the user namespace that we are in.
IDENTITY = IdMaps(_SAME, _SAME)


def read_idmaps(pid: Pid) -> IdMaps:
    """Of the user namespace that *pid* is in."""
    return IdMaps(parse_idmap(read_small(f"/proc/{pid}/uid_map")), parse_idmap(read_small(f"/proc/{pid}/gid_map")))


def parse_idmap(text: str) -> IdMap:
    """The contents of ``uid_map``, ``gid_map`` or ``projid_map``."""
    rows = (map(int, line.split()) for line in text.splitlines())
    return IdMap(tuple(Extent(*row) for row in rows))


def write_idmaps(pid: Pid, maps: IdMaps, *, setgroups: bool) -> None:
    """Give the new user namespace that *pid* is in its maps; without *setgroups* nobody in it may change groups."""
    if not setgroups:
        _write(f"/proc/{pid}/setgroups", "deny")
    for name, one in (("uid_map", maps.users), ("gid_map", maps.groups), ("projid_map", maps.projects)):
        if one.extents:
            _write(f"/proc/{pid}/{name}", "".join(f"{each.first} {each.outer} {each.count}\n" for each in one.extents))


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as stream:
        stream.write(text)


@contextmanager
def owning(idmaps: IdMaps) -> Iterator[None]:
    """What the calling thread makes meanwhile belongs to who is in charge of the user namespace with *idmaps*.

    In a file system of that namespace nothing can be made by somebody who has no id there (EOVERFLOW).
    """
    owner = idmaps.outside(idmaps.users.head, idmaps.groups.head)
    if idmaps is IDENTITY or -1 in owner:
        yield
        return
    set_owner_of_new_files(*owner)
    try:
        yield
    finally:
        set_owner_of_new_files(os.geteuid(), os.getegid())


def set_owner_of_new_files(user: int, group: int) -> None:
    """Have what the calling thread makes from now on belong to *user* and *group* (ids of ours); it loses no privilege.

    The kernel takes file capabilities away with a file-system user id of 0 (capabilities(7)), and with any change makes
    the process one that its own user may not look into (PR_SET_DUMPABLE in prctl(2)); both are taken back.
    """
    dumpable = syscall("prctl(PR_GET_DUMPABLE)", nr.prctl, PR_GET_DUMPABLE)
    syscall("setfsgid", nr.setfsgid, group)
    syscall("setfsuid", nr.setfsuid, user)
    if dumpable == 1:
        syscall("prctl(PR_SET_DUMPABLE)", nr.prctl, PR_SET_DUMPABLE, dumpable)
    header = bytearray(struct.pack("<Ii", _CAPABILITY_VERSION_3, 0))
    sets = bytearray(24)
    syscall("capget", nr.capget, address_of(header), address_of(sets))
    low, high = _permitted_as_effective(struct.unpack("<6I", sets))
    packed = bytearray(struct.pack("<6I", *low, *high))
    syscall("capset", nr.capset, address_of(header), address_of(packed))


def _permitted_as_effective(words: Iterable[int]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    _, low, low_inheritable, _, high, high_inheritable = words
    return (low, low, low_inheritable), (high, high, high_inheritable)
