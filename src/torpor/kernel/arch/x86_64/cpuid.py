"""CPUID: what this processor can do, as its own words.

There is no system call for it, and /dev/cpu needs a module; so a few bytes of code are mapped and called here, in our
own process (what runs inside of targets is the loop and nothing else).
"""

from __future__ import annotations

import ctypes
import mmap

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
        prot = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        self._code = mmap.mmap(-1, mmap.PAGESIZE, prot=prot)
        self._code.write(CODE)
        kind = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)
        self._start = (ctypes.c_char * 0).from_buffer(self._code)
        self._call = kind(ctypes.addressof(self._start))
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
        """Unmap the code."""
        del self._call, self._start
        self._code.close()

    def __enter__(self) -> Cpuid:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
