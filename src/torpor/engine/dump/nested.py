"""Namespaces that processes below the root of a tree have for themselves: looked at before anything is frozen."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torpor.base.ids import Pid
from torpor.base.late import Late
from torpor.engine.dump import externals
from torpor.objects.ns.model import NsKind
from torpor.objects.ns.table import NAMESPACES
from torpor.objects.policy import Policies


def prepare(pids: Sequence[Pid], policies: Policies) -> None:
    """Import what dumps those of a tree's processes; RefusedError for what a kind's check refuses."""
    for kind in NAMESPACES:
        if kind.nests:
            for one in _apart(kind, pids, policies.external):
                if isinstance(kind.dump, Late):
                    kind.dump.load()
                if kind.check is not None:
                    kind.check(one, policies)


def _apart(kind: NsKind, pids: Sequence[Pid], external: tuple[str, ...]) -> list[Pid]:
    """A process in each namespace of that kind that is neither ours, nor external, nor that of the first of *pids*."""
    found = []
    seen = set()
    for each in (None, *pids):
        try:
            link = os.readlink(f"/proc/{each or 'self'}/ns/{kind.link}")
            if link in seen:
                continue
            seen.add(link)
            if each is not None and each != pids[0] and externals.key_of(kind, each, external) is None:
                found.append(each)
        except OSError:
            continue  # gone, or not ours to look at
    return found
