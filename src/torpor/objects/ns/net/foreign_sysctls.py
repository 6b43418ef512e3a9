"""sysctls of a network namespace that whoever restores makes: a container's, of its engine.

Kernel view
    As in ``sysctls``.  What nobody has set is as in a namespace made to look at it; of an interface, as in ``default``.
Image
    ``torpor-sysctl-%u.img``, of what is not so.  CRIU does not carry it, and a runtime that restores does not set again
    what it has set when it began a container.
Restore
    What is as in a new namespace becomes what it was.  What is not was set by whoever has made this one: it stays.
    If the restore fails, or is killed, it is as it was again.
Limits
    They are looked at while the tree runs.  What was set to what it is in a new namespace is not carried.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from torpor.base import log
from torpor.base.fds import OwnedFd
from torpor.images import kinds
from torpor.images.errors import ImageError
from torpor.kernel.idmap import NO_ID, IdMap
from torpor.kernel.namespaces import CLONE_NEWNET, inside, isolated, unshare
from torpor.objects.ns.model import NsDump, NsRestore
from torpor.objects.ns.net import sysctls
from torpor.tracee import caretaker

_GROUPS = "ipv4/ping_group_range"
_MOST_DIGITS = 10
#: For whoever takes it back when we are dead: a line has the path, and behind a tab the value, which may have more.
_WRITE_AGAIN = """
while IFS='\t' read -r path value; do printf '%s\\n' "$value" >"/proc/sys/net/$path"; done 2>/dev/null
"""
#: What changes others comes first.
_FIRST = frozenset(("ip_forward", "forwarding"))
#: What such a one changes (inet_forward_change, addrconf_fixup_forwarding).
_OF_A_ROUTER = frozenset(("ip_forward", "forwarding", "accept_redirects"))
#: A program is fed no more characters at once, of which none takes more than four bytes: a pipe holds 64 KiB.
_ROOM = 15_000


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
    """In the namespace that the tree is in by now; it is taken back if the restore fails, or is killed."""
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
    take_back = session.context.take_back
    inside(session.where, CLONE_NEWNET, lambda: _restore(wanted, new, names, take_back))


def _restore(
    wanted: Mapping[str, str],
    new: Mapping[str, str],
    names: Sequence[str] | None,
    take_back: Callable[[Sequence[caretaker.Step]], None],
) -> None:
    before = _read(names)
    changed = {}
    for path, value in wanted.items():
        found = before.get(path)
        if found is None:
            log.warn(f"sysctl net/{path} was {value}, and there is none")
        elif sysctls.is_same(_usual(new, path), found):
            if not sysctls.is_same(found, value):
                changed[path] = value
        elif not sysctls.is_same(found, value):
            log.warn(f"sysctl net/{path} was {value}: it stays {found}, as whoever made the network has set it")
    if not changed:
        return
    # Setting one for all interfaces, or what a router does, changes others.
    others = {path: before[path] for path in before.keys() - changed.keys() if "/conf/" in path}
    with OwnedFd(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as netns:
        take_back(_steps_back(before, changed, netns.fileno()))
    _set(changed)
    _set(others)


def _steps_back(before: Mapping[str, str], changed: Iterable[str], netns: int) -> list[caretaker.Step]:
    """What of a caretaker has those *changed*, and what changes with them, be as *before* in the namespace *netns*."""
    also = {path.rpartition("/")[2] for path in changed if _changes_others(path)}
    if also & _FIRST:
        also |= _OF_A_ROUTER
    others = [path for path in before.keys() - set(changed) if path.rpartition("/")[2] in also]
    lines = [f"{path}\t{before[path]}\n" for part in (changed, others) for path in sorted(part, key=_order)]
    texts = [""]
    for line in lines:
        if len(texts[-1]) + len(line) > _ROOM:
            texts.append("")
        texts[-1] += line
    argv = ["/bin/sh", "-c", _WRITE_AGAIN]
    # Twice: of two that bound each other one may be refused as long as the other is not what it was.
    return [caretaker.run(netns, argv, text.encode(errors="surrogateescape")) for text in texts] * 2


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
