"""Namespaces that are not the tree's own but come from outside: external ones, and those to be joined.

``--inherit-fd fd[N]:KEY`` is the namespace that stands for the external one of that key; ``--join-ns KIND:PATH`` puts
the tree into another namespace of that kind, whatever the images hold of it.
"""

from __future__ import annotations

import os

from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.engine.options import JoinNs
from torpor.engine.restore.session import Joined, RestoreSession
from torpor.images import kinds
from torpor.images.store import ImageStore, load_one
from torpor.objects.ns.model import NsKind
from torpor.objects.ns.table import NAMESPACES


def key_in_images(store: ImageStore, kind: NsKind, ident: int) -> str | None:
    """KEY, if the images say that the namespace is external."""
    if kind.link == "net" and store.exists(kinds.NETNS.file_name(ident)):
        return load_one(store, kinds.NETNS, ident).ext_key or None
    if kind.link == "pid" and store.exists(kinds.PIDNS.file_name(ident)):
        return load_one(store, kinds.PIDNS, ident).ext_key or None
    return None


def join(session: RestoreSession, kind: NsKind, key: str) -> None:
    """Have the root join what the caller gave us for the external namespace *key*."""
    fd = session.context.files.inherited.get(key)
    if fd is None:
        raise RestoreError(
            f"the {kind.link} namespace is external: {key}", hint=f"say which it is: --inherit-fd fd[N]:{key}"
        )
    session.joined.append(Joined(OwnedFd(os.dup(fd)), kind.clone_flag))


def join_named(session: RestoreSession, wanted: JoinNs) -> NsKind:
    """Have the root join a namespace that the caller named; its kind."""
    kind = next((kind for kind in NAMESPACES if kind.link == wanted.kind), None)
    if kind is None:
        raise RestoreError(f"--join-ns {wanted.kind}: there is no such kind of namespace")
    path = f"/proc/{wanted.path}/ns/{kind.link}" if wanted.path.isdigit() else wanted.path
    try:
        fd = OwnedFd(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise RestoreError(f"--join-ns {wanted.kind}: {path}: {error.strerror}") from None
    session.joined.append(Joined(fd, kind.clone_flag))
    return kind
