"""``/proc/PID/stat``: see proc_pid_stat(5)."""

from __future__ import annotations

from functools import cache

from torpor.base.ids import Pid
from torpor.base.records import dataclass
from torpor.kernel.procfs.small import read_small


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields that a checkpoint needs; addresses are 0 where we may not read them."""

    pid: Pid
    comm: str
    state: str
    ppid: Pid
    pgrp: int
    session: int
    tty_nr: int
    tty_pgrp: int
    flags: int
    priority: int
    nice: int
    exit_signal: int
    start_time: int
    start_code: int
    end_code: int
    start_stack: int
    rt_priority: int
    policy: int
    start_data: int
    end_data: int
    start_brk: int
    arg_start: int
    arg_end: int
    env_start: int
    env_end: int
    exit_code: int


def parse_stat(text: str, ahead: int = 0) -> Stat:
    """One line; the comm may hold spaces and parentheses.  *ahead*: see ``read_stat``."""
    head, _, tail = text.rpartition(")")
    pid, _, comm = head.partition(" (")
    f = tail.split()
    # Field numbers of the manual page, which counts from 1; f[0] is field 3.
    n = [0, 0, 0, *[int(value) for value in f[1:]]]
    return Stat(
        pid=Pid(int(pid)), comm=comm, state=f[0], ppid=Pid(n[3]), pgrp=n[4], session=n[5], tty_nr=n[6], tty_pgrp=n[7],
        flags=n[8], priority=n[17], nice=n[18], start_time=n[21] - ahead, start_code=n[25], end_code=n[26],
        start_stack=n[27], exit_signal=n[37], rt_priority=n[39], policy=n[40], start_data=n[44], end_data=n[45],
        start_brk=n[46], arg_start=n[47], arg_end=n[48], env_start=n[49], env_end=n[50], exit_code=n[51],
    )  # fmt: skip


def read_stat(pid: Pid, tid: Pid | None = None) -> Stat:
    """Of a process, or of its thread *tid*.  FileNotFoundError or ProcessLookupError when it is gone.

    The file shows ``start_time`` by the reader's clock; here it is by the machine's, the same in all time namespaces.
    """
    path = f"/proc/{pid}/stat" if tid is None else f"/proc/{pid}/task/{tid}/stat"
    return parse_stat(read_small(path), _ticks_ahead())


@cache
def _ticks_ahead() -> int:
    """How far our boot-time clock is ahead of the machine's, in hundredths of a second."""
    try:
        rows = [line.split() for line in read_small("/proc/self/timens_offsets").splitlines()]
    except OSError:
        return 0  # a kernel without time namespaces
    offsets = {name: int(seconds) * 10**9 + int(nanoseconds) for name, seconds, nanoseconds in rows}
    return offsets.get("boottime", 0) // 10**7
