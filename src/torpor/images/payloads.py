"""What follows an entry in the images that hold more than messages.

    pipes_data       ``bytes`` of pipe contents
    sk_queues        ``length`` bytes of one packet
    tcp_stream       ``inq_len`` bytes received, then ``outq_len`` bytes not yet acknowledged
    bpfmap_data      ``keys_bytes``, then ``values_bytes``
    ipc_shm          ``size`` bytes padded to 4, none where the contents are in pagemaps
    ipc_sem          ``nsems`` u16 values, padded to 8
    ipc_msg_queue    ``qnum`` messages, each: u32 length, ipc_msg, ``msize`` bytes padded to 8
    ghost_file       after a ghost_file_entry with ``chunks``: ghost_chunk_entry each with ``len`` bytes; else the rest
                     of the file
    pagemap          nothing: a pagemap_head, then pagemap_entry messages

Payloads with padding are given and taken without it.
"""

from __future__ import annotations

from collections.abc import Callable

from torpor.base.typed import TYPE_CHECKING, Any
from torpor.images._registry import message_class
from torpor.images.errors import ImageError
from torpor.images.format import U32, Entry, Source, parse_message, serialize

if TYPE_CHECKING:
    from torpor.images import messages as m
    from torpor.images.kinds import ImageKind

_LATER = {"pagemap": "pagemap_entry", "ghost_file": "ghost_chunk_entry"}

# payload name -> (its length by the message, what it is padded to)
_SIZED: dict[str, tuple[Callable[[Any], int], int]] = {
    "pipes_data": (lambda e: int(e.bytes), 1),
    "sk_queues": (lambda e: int(e.length), 1),
    "tcp_stream": (lambda e: int(e.inq_len + e.outq_len), 1),
    "bpfmap_data": (lambda e: int(e.keys_bytes + e.values_bytes), 1),
    "ipc_shm": (lambda e: 0 if e.in_pagemaps else int(e.size), 4),
    "ipc_sem": (lambda e: int(e.nsems) * 2, 8),
}


def later_entry(kind: ImageKind[m.Message]) -> str | None:
    """The message of the entries after the first, where it is another one."""
    return _LATER.get(kind.payload or "")


def _padding(n_bytes: int, to: int) -> int:
    return -n_bytes % to


def _sized_reader(name: str) -> Callable[[Source, Any, int], Entry[Any]]:
    length_of, to = _SIZED[name]

    def read(source: Source, message: Any, offset: int) -> Entry[Any]:
        n_bytes = length_of(message)
        payload = source.read(n_bytes, f"the payload of {name}")
        source.read(_padding(n_bytes, to), "padding")
        return Entry(message, payload, offset=offset)

    return read


def _read_queue(source: Source, message: m.ipc_msg_entry, offset: int) -> Entry[Any]:
    parts = []
    part_type = message_class("ipc_msg")
    for index in range(message.qnum):
        at = source.offset
        length = source.read_length()
        if length is None:
            raise source.error(f"the queue says {message.qnum} messages and has {index}")
        data = source.read(length, "a queued message")
        part: Any = parse_message(part_type, data, f"{source.name}: queue", index, at)
        payload = source.read(part.msize, "a queued message's text")
        source.read(_padding(part.msize, 8), "padding")
        parts.append(Entry(part, payload, offset=at))
    return Entry(message, parts=tuple(parts), offset=offset)


def _read_ghost(source: Source, message: Any, offset: int) -> Entry[Any]:
    if message.DESCRIPTOR.name == "ghost_chunk_entry":
        return Entry(message, source.read(message.len, "the chunk of a ghost file"), offset=offset)
    return Entry(message, b"" if message.chunks else source.read_rest(), offset=offset)


READERS: dict[str, Callable[[Source, Any, int], Entry[Any]] | None] = {
    **{name: _sized_reader(name) for name in _SIZED},
    "ipc_msg_queue": _read_queue,
    "ghost_file": _read_ghost,
    "pagemap": None,
}


def _check_length(kind: ImageKind[m.Message], told: int, found: int) -> None:
    if told != found:
        raise ImageError(f"{kind.file_pattern}: the entry says a payload of {told} bytes, it has {found}")


def _encode_queue(kind: ImageKind[m.Message], entry: Entry[Any]) -> bytes:
    if entry.message.qnum != len(entry.parts):
        raise ImageError(f"{kind.file_pattern}: {entry.message.qnum} messages told, {len(entry.parts)} given")
    out = []
    for part in entry.parts:
        _check_length(kind, part.message.msize, len(part.payload))
        data = serialize(part.message, kind.file_pattern)
        out += [U32.pack(len(data)), data, part.payload, bytes(_padding(len(part.payload), 8))]
    return b"".join(out)


def encode_payload(kind: ImageKind[m.Message], entry: Entry[Any]) -> bytes:
    """The bytes that follow the message, padding included; ImageError where the message tells another length."""
    if kind.payload == "ipc_msg_queue":
        return _encode_queue(kind, entry)
    if kind.payload == "ghost_file":
        if entry.message.DESCRIPTOR.name == "ghost_chunk_entry":
            _check_length(kind, entry.message.len, len(entry.payload))
        elif entry.message.chunks:
            _check_length(kind, 0, len(entry.payload))
        return entry.payload
    if kind.payload == "pagemap":
        _check_length(kind, 0, len(entry.payload))
        return b""
    length_of, to = _SIZED[kind.payload or ""]
    _check_length(kind, length_of(entry.message), len(entry.payload))
    return entry.payload + bytes(_padding(len(entry.payload), to))
