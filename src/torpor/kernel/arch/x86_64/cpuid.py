"""CPUID: what this processor can do, as its own words.

There is no system call for it, and /dev/cpu needs a module; so a few bytes of code are mapped and called here, in our
own process (what runs inside of targets is the loop and nothing else).
"""

from __future__ import annotations

import ctypes
import mmap
import os

from torpor.base.fds import OwnedFd
from torpor.kernel.arch.x86_64 import nr
from torpor.kernel.syscall import syscall

LISTING = """
        .intel_syntax noprefix
        push    rbx
        mov     r8, rdx
        mov     eax, edi
        mov     ecx, esi
        cpuid
        mov     [r8], eax
        mov     [r8 + 4], ebx
        mov     [r8 + 8], ecx
        mov     [r8 + 12], edx
        pop     rbx
        ret
"""
CODE = bytes.fromhex("534989d089f889f10fa241890041895804418948084189500c5bc3")
_EXTENDED = 0x80000000
_BASIC = 0


class Cpuid:
    """Makes the instruction.  Use it in a ``with``."""

    def __init__(self) -> None:
        # Of a file, for there are services that may not make code of what was writable memory.
        with OwnedFd(os.memfd_create("cpuid", os.MFD_CLOEXEC)) as fd:
            os.write(fd.fileno(), CODE)
            prot = mmap.PROT_READ | mmap.PROT_EXEC
            self._start = syscall("mmap", nr.mmap, 0, mmap.PAGESIZE, prot, mmap.MAP_PRIVATE, fd.fileno(), 0)
        kind = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)
        self._call = kind(self._start)
        self._out = (ctypes.c_uint32 * 4)()
        self._highest = {_BASIC: 0xFFFFFFFF, _EXTENDED: 0xFFFFFFFF}
        self._highest = {first: self.leaf(first)[0] for first in (_BASIC, _EXTENDED)}

    def leaf(self, leaf: int, subleaf: int = 0) -> tuple[int, int, int, int]:
        """eax, ebx, ecx, edx of a leaf; zeroes for one that the processor does not have."""
        if leaf > self._highest[leaf & _EXTENDED]:
            return 0, 0, 0, 0
        self._call(leaf, subleaf, ctypes.addressof(self._out))
        eax, ebx, ecx, edx = self._out
        return eax, ebx, ecx, edx

    def close(self) -> None:
        """Unmap the code; nothing can be asked afterwards."""
        del self._call
        syscall("munmap", nr.munmap, self._start, mmap.PAGESIZE)

    def __enter__(self) -> Cpuid:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
