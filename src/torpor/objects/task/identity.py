"""Small properties of a process: personality, OOM score, login uid.

Kernel view
    ``/proc/PID/personality``, ``oom_score_adj``, ``loginuid``.
Image
    ``task_core_entry``.
Restore
    personality(2) inside; the rest through /proc by the conductor.
"""

from __future__ import annotations

from torpor.kernel.arch import nr
from torpor.objects.model import DumpProcess, RestoreProcess
from torpor.tracee.batch import Batch


def dump(process: DumpProcess, batch: Batch) -> None:
    """Fill in the fields."""
    core = process.core.tc
    core.personality = int(_read(process.pid, "personality"), 16)
    core.oom_score_adj = int(_read(process.pid, "oom_score_adj"))


def restore(process: RestoreProcess, batch: Batch) -> None:
    """Set them."""
    core = process.core.tc
    batch.call(nr.personality, core.personality)
    if core.HasField("oom_score_adj"):
        text = str(core.oom_score_adj)
        if _read(process.pid, "oom_score_adj") != text:
            with open(f"/proc/{process.pid}/oom_score_adj", "w", encoding="ascii") as stream:
                stream.write(text)


def _read(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/{name}", encoding="ascii") as stream:
        return stream.read().strip()
