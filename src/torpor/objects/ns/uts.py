"""uts namespace: host name and domain name.

Kernel view
    uname(2) and ``/proc/sys/kernel/domainname``, which show those of the thread that asks.
Image
    ``utsns_entry``.
Restore
    sethostname(2), and the sysctl.
Limits
    A name of more than 64 characters is refused.  The kernel's own names (release, version, machine) are this one's.
"""

from __future__ import annotations

import os

from torpor.base.errors import RestoreError
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import load_one, store_one
from torpor.kernel.namespaces import CLONE_NEWUTS, inside
from torpor.objects.ns.model import NsDump, NsRestore

_SYSCTL = "/proc/sys/kernel"


def dump(session: NsDump) -> None:
    """Write the host name and the domain name of the namespace."""

    def read() -> tuple[str, str]:
        with open(f"{_SYSCTL}/domainname", encoding="utf-8", errors="surrogateescape") as stream:
            return os.uname().nodename, stream.read().rstrip("\n")

    node, domain = inside(session.pidfd, CLONE_NEWUTS, read)
    store_one(session.store, "UTSNS", m.utsns_entry(nodename=node, domainname=domain), session.ident)


def restore(session: NsRestore) -> None:
    """Set the host name and the domain name of the namespace.  RestoreError for one of more than 64 characters."""
    entry = load_one(session.store, kinds.UTSNS, session.ident)

    def write() -> None:
        for name, value in (("hostname", entry.nodename), ("domainname", entry.domainname)):
            with open(f"{_SYSCTL}/{name}", "w", encoding="utf-8", errors="surrogateescape") as stream:
                stream.write(value)

    if len(entry.nodename) > 64 or len(entry.domainname) > 64:
        raise RestoreError("utsns image: a name is longer than 64 characters")
    inside(session.pidfd, CLONE_NEWUTS, write)
