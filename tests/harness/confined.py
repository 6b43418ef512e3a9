"""The engine as on a machine with SELinux: python confined.py LABEL COMMAND...

No security module need be active.  What the kernel and its policy would say is played: tasks have the context TARGET,
we have LABEL, and nobody may send himself a signal.  Code is not mapped in anonymous memory then, threads come last,
and their ids are chosen from outside.  Nothing can be written to /proc/PID/attr, so what would be is left out.

Sockets have the context TARGET as well: a puppet that makes one and has not asked for that first fails.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

TARGET = "system_u:system_r:server_t:s0"
ENGINE = "unconfined_u:unconfined_r:unconfined_t:s0"


if TYPE_CHECKING:
    from torpor.tracee.batch import Result


def play(own: str) -> None:
    """Have this process see such a machine."""
    from torpor.kernel import lsm
    from torpor.kernel.arch import nr
    from torpor.objects.task import lsm as labels
    from torpor.tracee.batch import Batch

    def answer(value: object) -> object:
        return lambda *args: value

    for name, value in {
        "active": lsm.SELINUX,
        "own_label": own,
        "allows": False,
        "is_enforcing": False,
        "is_known": True,
        "labelling_sockets": nullcontext(),
    }.items():
        setattr(lsm, name, answer(value))
    lsm.read_label = lambda pid, tid, name: TARGET if name == "current" else ""
    lsm.read_file_label = lambda fd: TARGET if stat.S_ISSOCK(os.fstat(fd).st_mode) else ""
    lsm.SOCKCREATE = "/dev/null"
    labels._to_write = answer([])  # type: ignore[assignment]
    add, asked = Batch.call, set[int]()

    def call(batch: Batch, number: int, *args: Any, **keywords: Any) -> Result:
        if number == nr.write and getattr(args[1], "size", 0) == len(TARGET):
            asked.add(id(batch))
        assert number != nr.socketpair or id(batch) in asked, "a pair of sockets without their label"
        return add(batch, number, *args, **keywords)

    Batch.call = call  # type: ignore[method-assign, assignment]


def engine(own: str = ENGINE) -> list[str]:
    """The `criu` command there, with that context of its own."""
    return [sys.executable, str(Path(__file__)), own]


if __name__ == "__main__":
    play(sys.argv.pop(1))
    from torpor.cli.criu.main import command

    command()
