"""The vdso of this machine: how its functions are called, and whether one can be had by a system call."""

from __future__ import annotations

import errno

from torpor.kernel.arch.x86_64 import nr
from torpor.kernel.syscall import syscall

#: What the names of its functions begin with.
PREFIX = "__vdso_"
#: Code that reads nothing of the kernel's: it is good on any kernel.
WITHOUT_DATA = ("__vdso_sgx_enter_enclave",)
_ARCH_MAP_VDSO_64 = 0x2003


def can_be_mapped() -> bool:
    """Whether the kernel maps one on request.  We have one: only a kernel that knows the request minds."""
    try:
        syscall("arch_prctl", nr.arch_prctl, _ARCH_MAP_VDSO_64, 0)
    except OSError as error:
        return error.errno == errno.EEXIST
    return False
