"""The messages by which pages travel between hosts: those of CRIU's page server, so that either end may be CRIU.

One message is 32 bytes in the host's order (CRIU's ``struct page_server_iov``): a command with the flags of a run in
its upper half, a number of pages, the address of the first, and whose they are.  Bytes follow where pages are present.

    to a server that takes pages        OPEN2 -> one byte, whether the parent images have it; ADD_F, its bytes; ...;
                                        PARENT -> a number, the same question; CLOSE -> a number, 0: all is there
    to one that has pages               GET -> ADD_F (as many as it has from there on) and their bytes; ...; CLOSE -> 0

What comes is a stranger's: ``unpack`` refuses what cannot be, and what may be is checked by whoever it is for.
"""

from __future__ import annotations

import struct

from torpor.base.errors import TorporError
from torpor.base.records import dataclass
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.kinds import ImageKind
from torpor.images.pagemap import PE_LAZY, PE_PARENT, PE_PRESENT, PageRun
from torpor.kernel.vm import PAGE_SIZE

_HEADER = struct.Struct("=I4xQQQ")
HEADER_BYTES = _HEADER.size
#: What the peer answers to PARENT, and to CLOSE.
NUMBER = struct.Struct("=i")

ADD, HOLE, OPEN, OPEN2, PARENT, ADD_F, GET = range(1, 8)
CLOSE, FORCE_CLOSE = 0x1023, 0x1024
#: The most bytes that one GET may ask for.
MAX_GET_BYTES = 4 << 20

_COMMANDS = frozenset((ADD, HOLE, OPEN, OPEN2, PARENT, ADD_F, GET, CLOSE, FORCE_CLOSE))
_FLAGS = PE_PARENT | PE_LAZY | PE_PRESENT
#: Of the kinds of page maps; and the numbers that older CRIUs had for them.
_NUMBERS = {kinds.PAGEMAP.name: 1, kinds.SHMEM_PAGEMAP.name: 2}
_KINDS = {
    **dict.fromkeys((1, 10, 11, 16, 17), kinds.PAGEMAP),
    **dict.fromkeys((2, 27, 28, 29, 32, 33, 34), kinds.SHMEM_PAGEMAP),
}
_KIND_BITS = 8
_TOP = 1 << 64
_MAX_IDENT = (1 << 32) - 1


class WireError(TorporError):
    """The other end says what nobody may say, or has gone."""


@dataclass(frozen=True, slots=True)
class Message:
    """One of them; ``whose`` is what ``whose_is`` makes of a page map, and the bare number of a task in GET."""

    command: int
    n_pages: int = 0
    vaddr: int = 0
    whose: int = 0
    flags: int = 0

    @property
    def n_bytes(self) -> int:
        """How long its pages are together, in bytes."""
        return self.n_pages * PAGE_SIZE

    @property
    def run(self) -> PageRun:
        """Its pages as a run."""
        return PageRun(self.vaddr, self.n_pages, self.flags, PAGE_SIZE)


def pack(message: Message) -> bytes:
    """The HEADER_BYTES bytes of a message; the bytes of its pages come behind."""
    return _HEADER.pack(message.command | message.flags << 16, message.n_pages, message.vaddr, message.whose)


def unpack(data: bytes | memoryview) -> Message:
    """The message in HEADER_BYTES bytes; WireError for one that cannot be."""
    word, n_pages, vaddr, whose = _HEADER.unpack(data)
    command, flags = word & 0xFFFF, word >> 16
    if command not in _COMMANDS:
        raise WireError(f"the other end speaks another protocol: command {word:#x}", hint=_OTHER)
    if command == ADD:
        flags = PE_PRESENT
    elif command == HOLE:
        flags = PE_PARENT
    elif command == ADD_F:
        if flags & ~_FLAGS or (flags & PE_PARENT and flags & PE_PRESENT):
            raise WireError(f"pages with flags {flags:#x} cannot be")
    elif flags:
        raise WireError(f"command {command} with flags {flags:#x}")
    has_pages = command in (ADD, HOLE, ADD_F, GET)
    if has_pages and (vaddr % PAGE_SIZE or vaddr + n_pages * PAGE_SIZE > _TOP):
        raise WireError(f"{n_pages} pages at {vaddr:#x} cannot be")
    return Message(command, n_pages, vaddr, whose, flags)


_OTHER = "is it a page server, and does it speak TLS if this one does (or does not)?"


def whose_is(kind: ImageKind[m.pagemap_head], ident: int) -> int:
    """The number of a page map."""
    return ident << _KIND_BITS | _NUMBERS[kind.name]


def map_of(whose: int) -> tuple[ImageKind[m.pagemap_head], int]:
    """The page map that has a number: its kind, and its id.  WireError."""
    kind, ident = _KINDS.get(whose & ((1 << _KIND_BITS) - 1)), whose >> _KIND_BITS
    if kind is None or not 0 < ident <= _MAX_IDENT:
        raise WireError(f"no page map is number {whose:#x}")
    return kind, ident
