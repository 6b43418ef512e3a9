"""Complete messages and images of every kind, made from the schema alone."""

from __future__ import annotations

from typing import Any

from torpor.images import messages as m
from torpor.images._registry import message_class
from torpor.images.format import Entry
from torpor.images.kinds import ImageKind

_PLAIN: dict[int, object] = {8: True, 9: "text", 12: b"\x00\xff", 11: None, 14: None}


def fill(message: m.Message, depth: int = 3) -> m.Message:
    """Sets every field of `message`, messages within messages `depth` deep; required ones always."""
    for field in message.DESCRIPTOR.fields:
        if field.type == 11:
            inner = getattr(message, field.name)
            if hasattr(inner, "add"):
                if depth:
                    fill(inner.add(), depth - 1)
            elif depth or field.name in message.FindInitializationErrors():
                fill(inner, max(depth - 1, 0))
            continue
        value = field.enum_type.values[0].number if field.enum_type else _PLAIN.get(field.type, field.number)
        current: Any = getattr(message, field.name)
        if hasattr(current, "append"):
            current.extend([value, value])
        else:
            setattr(message, field.name, value)
    return message


def entries_of(kind: ImageKind[m.Message]) -> list[Entry[m.Message]]:
    """A few entries as an image of `kind` may hold them, payloads included."""
    first: Any = fill(message_class(kind.entry or "")())
    match kind.payload:
        case None:
            return [Entry(first), Entry(first)]
        case "pagemap":
            return [Entry(first), Entry(m.pagemap_entry(vaddr=4096, compat_nr_pages=0, nr_pages=3, flags=4))]
        case "ghost_file":
            return [Entry(first), Entry(m.ghost_chunk_entry(len=3, off=8), b"abc")]
        case "ipc_msg_queue":
            first.qnum = 2
            parts = tuple(Entry(m.ipc_msg(mtype=1, msize=n), b"m" * n) for n in (3, 8))
            return [Entry(first, parts=parts), Entry(first, parts=parts)]
        case "ipc_shm":
            first.in_pagemaps = False
            first.size = 7
            return [Entry(first, b"s" * 7)] * 2
        case "ipc_sem":
            return [Entry(first, b"e" * 2 * first.nsems)] * 2
        case "tcp_stream":
            return [Entry(first, b"t" * (first.inq_len + first.outq_len))] * 2
        case "bpfmap_data":
            return [Entry(first, b"b" * (first.keys_bytes + first.values_bytes))] * 2
        case "pipes_data":
            return [Entry(first, b"p" * first.bytes)] * 2
        case other:
            assert other == "sk_queues"
            return [Entry(first, b"q" * first.length)] * 2
