"""Numbers that may not mix: a swap is found by mypy, which complains of an ignored error that is none.

What is in `_swaps` is never called: `tests/project/test_linters.py` has mypy read it, as it does everything.
"""

import re
from pathlib import Path

import torpor
from torpor.base.ids import Pid, TreePid
from torpor.kernel.pidfd import open_pidfd
from torpor.kernel.procfs.status import read_status
from torpor.objects.model import DumpProcess, RestoreProcess, RestoreThread
from torpor.tracee import puppet
from torpor.tracee.remote import Runner
from torpor.tracee.thread import Thread, tgkill


def _swaps(dumped: DumpProcess, restored: RestoreProcess, thread: RestoreThread, runner: Runner) -> None:
    # Ours is wanted: /proc, signals, pidfds, ptrace.
    read_status(dumped.ns_pid)  # type: ignore[arg-type]
    read_status(restored.pid, thread.ns_tid)  # type: ignore[arg-type]
    open_pidfd(restored.ns_pid)  # type: ignore[arg-type]
    tgkill(restored.pid, thread.ns_tid, 9)  # type: ignore[arg-type]
    Thread(restored.ns_pid, runner.tid)  # type: ignore[arg-type]
    # The tree's is wanted: what images say, and what a clone is to get.
    puppet.clone(runner, flags=0, exit_signal=0, set_tid=[runner.tid])  # type: ignore[list-item]
    _ = {restored.ns_pid: restored}[restored.pid]  # type: ignore[index]
    # Never the same, and no number from anywhere.
    _ = restored.pid == restored.ns_pid  # type: ignore[comparison-overlap]
    read_status(7)  # type: ignore[arg-type]


def test_they_are_plain_numbers_while_running() -> None:
    assert type(Pid(7)) is int
    assert type(TreePid(7)) is int


def test_pidfds_are_opened_by_our_numbers() -> None:
    source = Path(torpor.__file__).parent
    layers = [path for layer in ("tracee", "objects", "engine") for path in (source / layer).rglob("*.py")]
    assert not [path for path in layers if re.search(r"\bos\.pidfd_open\(", path.read_text())]
