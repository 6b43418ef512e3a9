"""Namespaces that are not the tree's own but come from outside: those named as external.

``--external net[INODE]:KEY`` (or ``pid[...]``): the namespace is named by KEY in its image and not looked into.
"""

from __future__ import annotations

import os

from torpor.base.errors import RefusedError
from torpor.base.ids import Pid
from torpor.images import messages as m
from torpor.images.store import ImageStore, store_one
from torpor.objects.ns.model import NsKind


def key_of(kind: NsKind, pid: Pid, external: tuple[str, ...]) -> str | None:
    """KEY, if the namespace of that kind that *pid* is in was named as external."""
    wanted = f"{kind.link}[{os.stat(f'/proc/{pid}/ns/{kind.link}').st_ino}]:"
    for text in external:
        if text.startswith(wanted):
            return text[len(wanted) :]
    return None


def dump(store: ImageStore, kind: NsKind, ident: int, key: str) -> None:
    """The image of an external namespace: its key.  RefusedError for kinds whose image has no place for one."""
    if kind.link == "net":
        store_one(store, "NETNS", m.netns_entry(ext_key=key), ident)
    elif kind.link == "pid":
        store_one(store, "PIDNS", m.pidns_entry(ext_key=key), ident)
    else:
        raise RefusedError(
            f"a {kind.link} namespace cannot be external", hint="leave it out here, and use --join-ns at the restore"
        )
