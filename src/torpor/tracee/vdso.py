"""No thread is stopped in the midst of the vdso, if that can be helped.

After its last look at the data, clock_gettime(3) adds the offset of the time namespace (do_hres_timens in the kernel).
A thread that is restored between the two adds the offset of after the restore to the time of before, and sees its clock
go back, or far ahead, by the time that it has slept.

It is let run for a moment, and stopped again: as it is met while the tree is being stopped, it may do whatever it likes
then, and should we die, it just runs on.  Single steps would leave it a SIGTRAP in that case.
"""

from __future__ import annotations

import time

from torpor.base.errors import KernelError, TargetGoneError
from torpor.base.ids import Pid
from torpor.kernel.procfs.maps import find_vdso
from torpor.tracee.thread import Thread

#: For how long it runs, and how often at most: one that asks for the time without a pause is in there nearly always.
_MOMENT_S, _TRIES = 0.00005, 200


class Vdso:
    """That of one process, which is looked for when somebody may be in it."""

    __slots__ = ("_code", "_pid")

    def __init__(self, pid: Pid) -> None:
        self._pid = pid
        self._code: range | None = None

    def leave(self, thread: Thread) -> None:
        """Have *thread*, which has been stopped, somewhere else, and stopped again.  TargetGoneError."""
        for _ in range(_TRIES):
            if thread.group_stop or not self._is_in(thread):
                return
            thread.cont()
            time.sleep(_MOMENT_S)
            thread.interrupt()
            thread.wait_interrupted()

    def _is_in(self, thread: Thread) -> bool:
        try:
            regs = thread.get_regs()
        except TargetGoneError:
            raise
        except KernelError:
            return False  # 32-bit code, which is refused later
        if regs.in_syscall or regs.is_compat:
            return False
        if self._code is None:
            try:
                self._code = find_vdso(self._pid)
            except (FileNotFoundError, ProcessLookupError):
                self._code = range(0)
        return regs.ip in self._code
