"""sysctls of a network namespace that whoever restores makes: a container's, of its engine.

Kernel view
    As in ``sysctls``.  What nobody has set is as in a namespace made to look at it; of an interface, as in ``default``.
Image
    ``torpor-sysctl-%u.img``, of what is not so.  CRIU does not carry it, and a runtime that restores does not set again
    what it has set when it began a container.
Restore
    What is as in a new namespace becomes what it was.  What is not was set by whoever has made this one: it stays.
Limits
    They are looked at while the tree runs.  What was set to what it is in a new namespace is not carried.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from torpor.base import log
from torpor.images import kinds
from torpor.images.errors import ImageError
from torpor.kernel.idmap import NO_ID, IdMap
from torpor.kernel.namespaces import CLONE_NEWNET, inside, isolated, unshare
from torpor.objects.ns.model import NsDump, NsRestore
from torpor.objects.ns.net import sysctls

_GROUPS = "ipv4/ping_group_range"
_MOST_DIGITS = 10
#: What changes others comes first.
_FIRST = frozenset(("ip_forward", "forwarding"))


# -- dump ------------------------------------------------------------------------------------------------------------


def look() -> dict[str, str]:
    """Name and value of each that somebody has set in the thread's namespace."""
    new = isolated(lambda: _read_new(None))
    return {
        path: value
        for path, value in sysctls.read_all().items()
        if (usual := _usual(new, path)) is not None and not sysctls.is_same(usual, value)
    }


def dump(session: NsDump, settings: dict[str, str]) -> None:
    """The image of what has been seen."""
    if not settings:
        return
    if _GROUPS in settings:
        settings[_GROUPS] = _translated(settings[_GROUPS], session.idmaps.groups, to_inside=True)
    sysctls.store_lines(session.store, session.ident, settings.items())


def _read_new(names: Iterable[str] | None) -> dict[str, str]:
    unshare(CLONE_NEWNET)
    return _read(names)


def _read(names: Iterable[str] | None) -> dict[str, str]:
    """Those of *names*, and what those of an interface are without it; None: all there are."""
    if names is None:
        return sysctls.read_all()
    paths = set(names)
    for path in names:
        place, _, name = path.rpartition("/")
        of = place.rpartition("/")[0]
        if of in sysctls.PER_DEVICE:
            paths |= {f"{of}/{whose}/{name}" for whose in (sysctls.DEFAULT, "lo")}
    return {path: value for path in paths if (value := sysctls.read(path)) is not None}


def _usual(new: Mapping[str, str], path: str) -> str | None:
    """What it is if nobody sets it; None: it is not known."""
    place, _, name = path.rpartition("/")
    of = place.rpartition("/")[0]
    if path not in new and of in sysctls.PER_DEVICE:
        # For neighbours there is no "default" but in the first namespace of all.
        return new.get(f"{of}/{sysctls.DEFAULT}/{name}", new.get(f"{of}/lo/{name}"))
    return new.get(path)


def _translated(value: str, groups: IdMap, *, to_inside: bool) -> str:
    """The range of groups that may ping, as the tree's user namespace has it, or as we have it."""
    if not all(word.isdecimal() and len(word) <= _MOST_DIGITS for word in value.split()):
        raise ImageError(f"the image of sysctls: {_GROUPS}: {value!r} is no range of groups")
    found = [groups.inside(int(word)) if to_inside else groups.outside(int(word)) for word in value.split()]
    return "1\t0" if NO_ID in found else "\t".join(map(str, found))


# -- restore ---------------------------------------------------------------------------------------------------------


def restore(session: NsRestore) -> None:
    """In the namespace that the tree is in by now; what has been set is taken back if the restore fails."""
    assert session.context is not None
    if not session.store.exists(kinds.TORPOR_SYSCTL.file_name(session.ident)):
        return
    found = sysctls.load_lines(session.store, session.ident)
    wanted = {f"{place}/{name}": value for place, name, value, _ in found}
    if _GROUPS in wanted:
        wanted[_GROUPS] = _translated(wanted[_GROUPS], session.idmaps.groups, to_inside=False)
    # There are hundreds, while a container waits that is restored: all are looked at where others may change.
    names = None if any(_changes_others(path) for path in wanted) else list(wanted)
    new = isolated(lambda: _read_new(names))
    before: dict[str, str] = {}
    place = session.context.keep(os.dup(session.where))
    session.context.undo.add(lambda: inside(place.fileno(), CLONE_NEWNET, lambda: _set(before)))
    inside(session.where, CLONE_NEWNET, lambda: _restore(wanted, new, before, names))


def _restore(
    wanted: Mapping[str, str], new: Mapping[str, str], before: dict[str, str], names: Sequence[str] | None
) -> None:
    before.update(_read(names))
    for path, value in wanted.items():
        found = before.get(path)
        if found is None:
            log.warn(f"sysctl net/{path} was {value}, and there is none")
        elif not sysctls.is_same(found, value) and not sysctls.is_same(_usual(new, path), found):
            log.warn(f"sysctl net/{path} was {value}: it stays {found}, as whoever made the network has set it")
    _set({path: value for path, value in wanted.items() if sysctls.is_same(_usual(new, path), before.get(path, ""))})
    # Setting one for all interfaces, or what a router does, changes others.
    _set({path: before[path] for path in before.keys() - wanted.keys() if "/conf/" in path})


def _set(wanted: Mapping[str, str]) -> None:
    refused = []
    for path in sorted(wanted, key=_order):
        if not sysctls.is_same(sysctls.read(path), wanted[path]):
            try:
                sysctls.write(path, wanted[path])
            except OSError:
                refused.append((path, wanted[path]))
    sysctls.write_again(refused)


def _changes_others(path: str) -> bool:
    place, _, name = path.rpartition("/")
    return name in _FIRST or place.rpartition("/")[2] in (sysctls.ALL, sysctls.DEFAULT)


def _order(path: str) -> tuple[bool, bool, bool]:
    place, _, name = path.rpartition("/")
    whose = place.rpartition("/")[2]
    return name not in _FIRST, whose != sysctls.ALL, whose != sysctls.DEFAULT
