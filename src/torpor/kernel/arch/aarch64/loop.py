"""The loop that makes an array of system calls; what it does, and a record's form, is as on x86-64.

Registers on entry: x19 first record, w20 number of records (at least 1), w21 the signal, x22 the frame to return to.
"""

from __future__ import annotations

import struct

from torpor.kernel.arch.aarch64.regs import UserRegs

RECORD = struct.Struct("<II6QqQQ")
RECORD_SIZE = RECORD.size
RESULT_OFFSET = 56
ARG_OFFSET = 8

LISTING = """
next:   ldr     w8, [x19]
        ldp     x0, x1, [x19, #8]
        ldp     x2, x3, [x19, #24]
        ldp     x4, x5, [x19, #40]
        svc     #0
        str     x0, [x19, #56]
        ldp     x9, x10, [x19, #64]
        cbz     x9, 1f
        str     x0, [x9]
1:      cbz     x10, 2f
        str     x0, [x10]
2:      ldr     w9, [x19, #4]
        cbnz    w9, 3f
        cmn     x0, #4095
        b.hs    done
3:      add     x19, x19, #80
        subs    w20, w20, #1
        b.ne    next
done:   mov     x8, #172
        svc     #0
        mov     x23, x0
        mov     x8, #178
        svc     #0
        mov     x1, x0
        mov     x0, x23
        mov     w2, w21
        mov     x8, #131
        svc     #0
        mov     sp, x22
        mov     x8, #139
        svc     #0
"""

CODE = bytes.fromhex(
    "680240b9608640a9628e41a9649642a9010000d4601e00f9692a44a9490000b4200100f94a0000b4400100f9690640b9"
    "690000351ffc3fb1820000547342019194060071e1fdff54881580d2010000d4f70300aa481680d2010000d4e10300aa"
    "e00317aae203152a681080d2010000d4df020091681180d2010000d4"
)
#: Behind the first system call after the last record's.
DONE_OFFSET = 80


def start(regs: UserRegs, code: int, records: int, count: int, stop_signal: int, frame: int) -> None:
    """Have a task with *regs* run the loop that lies at *code*; *frame* is the ``rt_sigframe`` to return to."""
    regs.forget_branch()
    regs.ip, regs.x19, regs.x20, regs.x21, regs.x22 = code, records, count, stop_signal, frame
