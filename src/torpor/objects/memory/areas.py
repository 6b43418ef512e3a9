"""The numbers of ``vma_entry``: CRIU's VMA_AREA_*, and the kernel's MAP_*, PROT_* and MADV_* that it holds."""

from __future__ import annotations

AREA_REGULAR = 1 << 0
AREA_VSYSCALL = 1 << 2
AREA_VDSO = 1 << 3
AREA_HEAP = 1 << 5
FILE_PRIVATE = 1 << 6
FILE_SHARED = 1 << 7
ANON_SHARED = 1 << 8
ANON_PRIVATE = 1 << 9
AREA_SYSVIPC = 1 << 10
AREA_SOCKET = 1 << 11
AREA_VVAR = 1 << 12
AREA_AIORING = 1 << 13
AREA_MEMFD = 1 << 14
AREA_SHSTK = 1 << 15
#: Entries behind all others, for ranges of guard pages; no mappings themselves.
AREA_GUARD = 1 << 16

MAP_DROPPABLE = 0x08
