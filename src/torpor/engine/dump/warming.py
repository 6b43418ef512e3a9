"""What every dump needs while the tree is frozen and would make when first asked for, made before it is."""

from __future__ import annotations

import codecs

from torpor.base import records
from torpor.base.late import load
from torpor.engine.births import SetSid
from torpor.images import messages as m
from torpor.images.format import Entry
from torpor.images.pagemap import PageRun
from torpor.kernel.arch.regs import UserRegs
from torpor.objects.arch import core as image
from torpor.objects.memory.contents import Found
from torpor.objects.memory.space import PagesDumped, Scan
from torpor.objects.model import DumpThread
from torpor.objects.task import landlock, scheduling
from torpor.tracee.remote import Scratch
from torpor.tracee.thread import Stop

_MODULES = ("torpor.images.payloads", "zlib")
#: Of the manifest; each is a module.
_CODINGS = ("ascii", "unicode_escape")
_RECORDS = (DumpThread, Entry, Found, PageRun, PagesDumped, Scan, Scratch, SetSid, Stop, UserRegs)
_MESSAGES = (
    "core_entry", "fdinfo_entry", "file_entry", "fs_entry", "inventory_entry", "lsmtype", "mm_entry", "pagemap_entry",
    "pagemap_head", "pstree_entry", "vma_entry", *image.MESSAGES,
)  # fmt: skip


def warm_up() -> None:
    """Do it; takes about a millisecond, wherever it is spent."""
    records.ready(*_RECORDS)
    for module in _MODULES:
        load(module)
    for coding in _CODINGS:
        codecs.lookup(coding)
    scheduling.base_slice()
    landlock.are_we_free()
    for name in _MESSAGES:
        getattr(m, name)
