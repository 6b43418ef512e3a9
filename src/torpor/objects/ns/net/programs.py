"""Programs of bpf(2) that stand in a network namespace: what they let pass, or whom they give it to.

Kernel view
    BPF_PROG_QUERY of the namespace (flow dissectors, BPF_SK_LOOKUP) and of each interface (tcx).  Those of XDP are told
    of with the interface (``links.py``), those of tc are filters (``disciplines.py``).
Image
    None: the dump is refused, for the kernel does not give out how a program was made.
Restore
    None.
Limits
    Not seen is what netfilter calls (BPF_NETFILTER, whose links are descriptors or pinned files), and what a route
    calls (``encap bpf``): the restore of that fails.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from torpor.base.fds import OwnedFd
from torpor.kernel import bpf
from torpor.kernel.rtnetlink import Link
from torpor.kernel.uapi.bpf import BPF_FLOW_DISSECTOR, BPF_SK_LOOKUP, BPF_TCX_EGRESS, BPF_TCX_INGRESS

_OF_NAMESPACE = ((BPF_FLOW_DISSECTOR, "dissect flows"), (BPF_SK_LOOKUP, "choose sockets"))
_REMEDY = "bpftool net detach, or end what holds their links"


def found(links: Iterable[Link]) -> Iterator[tuple[str, str]]:
    """(what, what takes them away) of the thread's namespace, whose interfaces are *links*."""
    with OwnedFd(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as namespace:
        for place, what in _OF_NAMESPACE:
            if _has_any(namespace.fileno(), place):
                yield f"programs of bpf(2) that {what}", _REMEDY
    places = (BPF_TCX_INGRESS, BPF_TCX_EGRESS)
    names = [link.name for link in links if any(_has_any(link.index, place) for place in places)]
    if names:
        yield f"programs of bpf(2) at interfaces (tcx: {', '.join(names)})", _REMEDY


def _has_any(target: int, place: int) -> bool:
    try:
        return bpf.count_attached(target, place) > 0
    except OSError:
        return False  # a kernel without, or one that keeps it from us, who cannot have attached any either
