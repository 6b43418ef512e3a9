"""The program that the first puppet starts as: it waits for a pipe to close, and ends."""

from __future__ import annotations

#: e_machine of ELF.
ELF_MACHINE = 183
LISTING = """
        mov     x0, #0
        sub     x1, sp, #16
        mov     x2, #1
        mov     x8, #63
        svc     #0
        mov     x0, #0
        mov     x8, #94
        svc     #0
"""
#: read(0, sp - 16, 1); exit_group(0)
CODE = bytes.fromhex("000080d2e14300d1220080d2e80780d2010000d4000080d2c80b80d2010000d4")
#: Where in it a system call instruction is.
SYSCALL_OFFSET = 16


def _task_size() -> int:
    """By our own stack, which is at the very end: kernels give addresses of 39, 42, 47 or 48 bits, or 36."""
    with open("/proc/self/maps", "rb") as stream:
        end = next((line for line in stream if line.endswith(b"[stack]\n")), b"-0").split()[0].partition(b"-")[2]
    return 1 << (int(end, 16) - 1).bit_length()


#: The first address that no task has.
TASK_SIZE = _task_size()
