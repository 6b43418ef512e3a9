"""What the parts of a network namespace's restore share: the namespace, ours, and what the user says of the world."""

from __future__ import annotations

from torpor.base.records import dataclass
from torpor.images.store import ImageStore
from torpor.kernel.netlink import Netlink
from torpor.objects.session import RestoreContext


@dataclass(frozen=True, slots=True)
class Work:
    """A network namespace being filled, by a thread that is in it.

    ``inside`` and ``outside`` are netlink sockets of the namespace and of ours, ``inside_fd`` and ``outside_fd`` the
    two themselves.
    """

    store: ImageStore
    ident: int
    inside: Netlink
    outside: Netlink
    inside_fd: int
    outside_fd: int
    external: tuple[str, ...]
    weak_sysctls: bool
    #: Told what is to be undone if the restore fails.
    context: RestoreContext


def external_value(external: tuple[str, ...], kind: str, name: str) -> str | None:
    """The value of ``KIND[NAME]:VALUE`` in ``--external``; None where the user says nothing of it."""
    head = f"{kind}[{name}]"
    for text in external:
        if text == head:
            return ""
        if text.startswith(head + ":"):
            return text[len(head) + 1 :]
    return None
