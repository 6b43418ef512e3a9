"""Queueing disciplines: how the packets of an interface wait, and the classes of those that share a rate.

Kernel view
    RTM_GETQDISC, and RTM_GETTCLASS of each interface.  What the kernel attaches by itself has no handle.
Image
    ``torpor-qdisc-%u.img``, ours: RTM_NEWQDISC and RTM_NEWTCLASS messages.  CRIU does not carry them.
Restore
    Each after what it hangs below: the interface, a discipline, a class; the interfaces are up.
Limits
    Kinds that are not in ``KINDS``, and filters, are left out with a warning: so is what hangs below them.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator

from torpor.base import log
from torpor.base.errors import KernelError, RestoreError
from torpor.base.records import dataclass
from torpor.images import kinds
from torpor.images.errors import ImageError
from torpor.images.store import ImageStore
from torpor.kernel import netlink
from torpor.kernel.netlink import Netlink
from torpor.kernel.rtnetlink import Link, tcmsg
from torpor.kernel.uapi.netlink import NLM_F_CREATE, NLM_F_REPLACE
from torpor.kernel.uapi.pkt_sched import (
    TC_H_CLSACT,
    TC_H_MAJ_MASK,
    TC_H_MIN_EGRESS,
    TC_H_MIN_INGRESS,
    TC_H_ROOT,
    TC_LINKLAYER_ATM,
    TCA_HTB_INIT,
    TCA_STAB_BASE,
    TCA_STAB_DATA,
)
from torpor.kernel.uapi.rtnetlink import (
    RTM_GETQDISC,
    RTM_GETTCLASS,
    RTM_GETTFILTER,
    RTM_NEWQDISC,
    RTM_NEWTCLASS,
    TCA_EGRESS_BLOCK,
    TCA_INGRESS_BLOCK,
    TCA_KIND,
    TCA_OPTIONS,
    TCA_STAB,
)
from torpor.objects.ns.net import raw

#: The kinds that are set by what is told of them, and whether they have classes that somebody has made.
KINDS = {
    "bfifo": False,
    "clsact": False,
    "htb": True,
    "mq": False,
    "noqueue": False,
    "pfifo": False,
    "pfifo_fast": False,
    "pfifo_head_drop": False,
    "tbf": False,
}
_SETTABLE = (TCA_KIND, TCA_OPTIONS, TCA_STAB, TCA_INGRESS_BLOCK, TCA_EGRESS_BLOCK)
#: Logarithms of a cell and of the unit of sizes, alignment, overhead, link layer, least size, MTU, number of entries.
_tc_sizespec = struct.Struct("=BBhiIIII")
_MOST_ENTRIES, _MOST_BITS, _MOST_SIZE = 1 << 14, 16, 0xFFFF
#: A cell of ATM, and what of it is carried.
_ATM_CELL, _ATM_PAYLOAD = 53, 48


@dataclass(frozen=True, slots=True)
class _Piece:
    """A discipline, or a class of one: a message about it."""

    message: int
    interface: int
    handle: int
    parent: int
    kind: str
    payload: bytes

    @property
    def hangs_below(self) -> tuple[int, ...]:
        """Handles of the same interface that there must be before: a class also needs its discipline's."""
        if self.message == RTM_NEWTCLASS:
            return (self.parent, self.handle & TC_H_MAJ_MASK)
        return (self.parent,)


def _parse(message: int, payload: bytes) -> _Piece:
    _, interface, handle, parent, _ = tcmsg.unpack_from(payload)
    attributes = netlink.parse_attributes(payload[tcmsg.size :])
    kind = attributes.get(TCA_KIND, b"").rstrip(b"\0").decode(errors="replace")
    return _Piece(message, interface, handle, parent, kind, payload)


def dump(store: ImageStore, ident: int, connection: Netlink, links: Iterable[Link]) -> None:
    """Those of *links* that somebody has attached."""
    carried, lost = _look(connection, links)
    for loss in lost:
        log.warn(loss)
    if carried:
        messages = [(piece.message, piece.payload) for piece in carried]
        raw.store(store, kinds.TORPOR_QDISC, ident, messages)


def count_attached(connection: Netlink, links: Iterable[Link]) -> int:
    """How many somebody has attached to those of *links*."""
    names = {link.index for link in links}
    found = [_parse(RTM_NEWQDISC, payload) for payload in connection.dump(RTM_GETQDISC, tcmsg.pack(0, 0, 0, 0, 0))]
    return sum(bool(piece.handle) and piece.interface in names for piece in found)


def losses(connection: Netlink, links: Iterable[Link]) -> list[str]:
    """What of those of *links* a dump leaves out."""
    return _look(connection, links)[1]


def _look(connection: Netlink, links: Iterable[Link]) -> tuple[list[_Piece], list[str]]:
    """What is carried, in the order in which it is made, and what is said of the rest."""
    names = {link.index: link.name for link in links}
    found = [_parse(RTM_NEWQDISC, payload) for payload in connection.dump(RTM_GETQDISC, tcmsg.pack(0, 0, 0, 0, 0))]
    found = [piece for piece in found if piece.handle and piece.interface in names]
    for interface in sorted({piece.interface for piece in found if KINDS.get(piece.kind)}):
        answers = connection.dump(RTM_GETTCLASS, tcmsg.pack(0, interface, 0, 0, 0))
        classes = [_parse(RTM_NEWTCLASS, payload) for payload in answers]
        found += [piece for piece in classes if KINDS.get(piece.kind)]
    carried, left = _in_order([piece for piece in found if piece.kind in KINDS])
    lost = [
        f"the queueing discipline {piece.kind} of {names[piece.interface]} is left out"
        for piece in [*left, *(piece for piece in found if piece.kind not in KINDS)]
    ]
    lost += [
        f"the filters of the queueing discipline {piece.kind} of {names[piece.interface]} are left out"
        for piece in carried
        if piece.message == RTM_NEWQDISC and _has_filters(connection, piece)
    ]
    return carried, lost


def _has_filters(connection: Netlink, piece: _Piece) -> bool:
    minors = (TC_H_MIN_INGRESS, TC_H_MIN_EGRESS) if piece.kind == "clsact" else (0,)
    requests = [tcmsg.pack(0, piece.interface, 0, piece.handle | minor, 0) for minor in minors]
    return any(connection.dump(RTM_GETTFILTER, request) for request in requests)


def _in_order(pieces: list[_Piece]) -> tuple[list[_Piece], list[_Piece]]:
    """Those that hang below the interface, in the order in which they can be made; those that hang below nothing."""
    known: set[tuple[int, int]] = set()
    automatic = {(piece.interface, piece.handle) for piece in pieces if not KINDS[piece.kind]}
    ordered: list[_Piece] = []
    waiting: dict[tuple[int, int], list[_Piece]] = {}
    ready = list(reversed(pieces))
    while ready:
        piece = ready.pop()
        lacking = next(_lacking(piece, known, automatic), None)
        if lacking is not None:
            waiting.setdefault(lacking, []).append(piece)
            continue
        ordered.append(piece)
        known.add((piece.interface, piece.handle))
        ready += waiting.pop((piece.interface, piece.handle), [])
    return ordered, [piece for pieces_of_one in waiting.values() for piece in pieces_of_one]


def _lacking(piece: _Piece, known: set[tuple[int, int]], automatic: set[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for handle in piece.hangs_below:
        if handle in (TC_H_ROOT, TC_H_CLSACT):
            continue
        # Classes that a discipline has by itself are there with it.
        major = (piece.interface, handle & TC_H_MAJ_MASK)
        wanted = major if major in automatic else (piece.interface, handle)
        if wanted not in known:
            yield wanted


def restore(store: ImageStore, ident: int, connection: Netlink) -> None:
    """Attach the disciplines and classes of the image, each after what it hangs below.

    ImageError for a kind that no dump writes, RestoreError where this kernel does not have one.
    """
    expected = [(RTM_NEWQDISC, tcmsg.size), (RTM_NEWTCLASS, tcmsg.size)]
    pieces = [_parse(*each) for each in raw.load(store, kinds.TORPOR_QDISC, ident, expected)]
    for piece in pieces:
        if piece.kind not in KINDS or (piece.message == RTM_NEWTCLASS and not KINDS[piece.kind]):
            raise ImageError(f"{kinds.TORPOR_QDISC.file_name(ident)}: {piece.kind!r} is no discipline that is carried")
    ordered, _ = _in_order(pieces)
    for piece in ordered:
        payload = tcmsg.pack(0, piece.interface, piece.handle, piece.parent, 0)
        for number, value in netlink.iter_attributes(piece.payload[tcmsg.size :]):
            if number in _SETTABLE:
                payload += netlink.attribute(number, _settable(piece, number, value))
        try:
            connection.request(piece.message, payload, NLM_F_CREATE | NLM_F_REPLACE)
        except KernelError as error:
            raise RestoreError(
                f"the queueing discipline {piece.kind} of interface {piece.interface} cannot be made: {error}",
                hint="does this kernel have it (CONFIG_NET_SCH_...)?",
            ) from error


def _settable(piece: _Piece, number: int, value: bytes) -> bytes:
    """An attribute as the kernel takes it.

    Of sizes that are counted otherwise (``stab``) it does not tell the table.  Of htb it tells the whole version and
    takes the upper half (net/sched/sch_htb.c, htb_dump and htb_init).
    """
    if number == TCA_STAB:
        return value + _size_table(netlink.parse_attributes(value).get(TCA_STAB_BASE, b""))
    if (piece.message, piece.kind, number) != (RTM_NEWQDISC, "htb", TCA_OPTIONS):
        return value
    options = netlink.parse_attributes(value)
    init = options.get(TCA_HTB_INIT, bytes(4))
    options[TCA_HTB_INIT] = (int.from_bytes(init[:4], sys.byteorder) >> 16).to_bytes(4, sys.byteorder) + init[4:]
    return b"".join(netlink.attribute(option, text) for option, text in options.items())


def _size_table(base: bytes) -> bytes:
    """What tc(8) makes of the numbers beside it (tc-stab(8)): as how large a packet of each size counts."""
    cell, unit, _, _, layer, least, _, count = _tc_sizespec.unpack(base.ljust(_tc_sizespec.size, b"\0"))
    if not count:
        return b""
    if count > _MOST_ENTRIES or max(cell, unit) > _MOST_BITS:
        raise ImageError("a queueing discipline has a table of sizes that cannot be")
    sizes = [max(index << cell, least) for index in range(1, count + 1)]
    if layer == TC_LINKLAYER_ATM:
        sizes = [-(-size // _ATM_PAYLOAD) * _ATM_CELL for size in sizes]
    return netlink.attribute(
        TCA_STAB_DATA, struct.pack(f"={count}H", *[min(size >> unit, _MOST_SIZE) for size in sizes])
    )
