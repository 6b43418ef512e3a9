"""Files that are written to by mappings, which nobody is told of: neither their times nor their sizes change.

The kernel sets the time of change when a page is written to for the first time (``file_update_time`` in
``do_shared_fault`` and ``do_wp_page``, mm/memory.c), and not again while the page table lets it be written to.
"""

from __future__ import annotations

from contextlib import suppress

from torpor.base.ids import Pid
from torpor.kernel.procfs.maps import PROT_WRITE, read_maps
from torpor.kernel.procfs.task import read_tree


class Mapped:
    """Those that were so at any look: what was written before a mapping went is not told of either.

    ``paths`` are as the processes see them.
    """

    def __init__(self) -> None:
        self.paths: set[str] = set()

    def look(self, root: int, below: str = "/") -> None:
        """At what *root*, and all processes below it, have of what is *below* that directory."""
        for pid in read_tree(Pid(root)):
            with suppress(OSError):
                written = [vma for vma in read_maps(pid) if vma.shared and vma.is_file and vma.prot & PROT_WRITE]
                self.paths |= {vma.name for vma in written if vma.name.startswith(below)}
