"""The vdso of this machine: how its functions are called, and whether one can be had by a system call."""

from __future__ import annotations

#: What the names of its functions begin with.
PREFIX = "__kernel_"
#: Code that reads nothing of the kernel's: it is good on any kernel.
WITHOUT_DATA = ("__kernel_rt_sigreturn",)


def can_be_mapped() -> bool:
    """No kernel maps one on request."""
    return False
