"""The last steps of a restore: where a system call can be found, who is told, in what order protection goes."""

import ctypes
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from torpor.base.errors import RestoreError
from torpor.engine.options import RestoreOptions
from torpor.engine.restore import finishing
from torpor.engine.restore.session import RestoreSession
from torpor.kernel import ptrace, signal
from torpor.kernel.arch import call
from torpor.kernel.procfs.maps import PROT_EXEC, PROT_READ, PROT_WRITE
from torpor.objects.task import stopped
from unit.engine.restore.making import Member, read, runner, stored


def _session(*members: Member, **options: Any) -> RestoreSession:
    session = read(stored(members), RestoreOptions(**options))
    session.channel.close()
    for process in session.everyone:
        for thread in process.threads:
            thread.made = runner(process.ns_pid, thread.ns_tid)
    return session


class Code:
    """Memory of ours with a system call somewhere in it."""

    def __init__(self, at: int) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        if at >= 0:
            self._memory[at : at + len(call.SYSCALL)] = call.SYSCALL
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self.end = self.start + mmap.PAGESIZE


def _with_code(vdso: tuple[int, int] | None, *mapped: tuple[Code, int]) -> Any:
    session = _session(Member(10, vmas=[(code.start, code.end) for code, _ in mapped]))
    process = session.root
    process.threads[0].made = runner(os.getpid())
    assert process.mm is not None
    for entry, (_, prot) in zip(process.mm.vmas, mapped, strict=True):
        entry.prot = prot
    process.vdso_place = vdso
    return process


def test_the_vdso_makes_the_last_call() -> None:
    vdso, own = Code(100), Code(7)
    process = _with_code((vdso.start, mmap.PAGESIZE), (own, PROT_READ | PROT_EXEC))
    assert finishing._find_syscall(process) == vdso.start + 100


def test_without_one_the_programs_own_code_does() -> None:
    """What may not be read and executed is no code, and code without a call is passed over."""
    data, empty, own = Code(0), Code(-1), Code(7)
    prots = (PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC, PROT_READ | PROT_EXEC)
    process = _with_code(None, *zip((data, empty, own), prots, strict=True))
    assert finishing._find_syscall(process) == own.start + 7


def test_a_task_without_either_is_told() -> None:
    # Longer than what is there: nothing of it can be read at once.
    gone = SimpleNamespace(start=1 << 40, end=(1 << 40) + 4096)
    process = _with_code(None, (Code(-1), PROT_READ | PROT_EXEC), (gone, PROT_READ | PROT_EXEC))  # type: ignore[arg-type]
    with pytest.raises(RestoreError, match="pid 10 has neither a vdso nor code that makes system calls"):
        finishing._find_syscall(process)


def _told(refusal: str = "") -> tuple[list[tuple[str, int]], Callable[[str, int], None]]:
    told: list[tuple[str, int]] = []

    def notify(action: str, pid: int) -> None:
        told.append((action, pid))
        if action == refusal:
            raise RestoreError(f"{action}: no")

    return told, notify


def test_who_is_told_that_all_is_there_may_say_no() -> None:
    told, notify = _told("post-restore")
    with pytest.raises(RestoreError, match="post-restore: no"):
        finishing.notify_ready(_session(Member(10), notify=notify))
    assert told == [("post-restore", 10)]


def test_who_is_told_last_may_not(capsys: pytest.CaptureFixture[str]) -> None:
    told, notify = _told("pre-resume")
    finishing.notify_resume(_session(Member(10), notify=notify))
    assert told == [("pre-resume", 10)]


@pytest.mark.parametrize("all_of_them", [False, True])
def test_who_stops(all_of_them: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were stopped, by the signal that they were stopped by; the others only if all are to be."""
    by: list[tuple[int, int | None]] = []
    monkeypatch.setattr(stopped, "is_stopped", lambda process: process.ns_pid == 20)
    monkeypatch.setattr(stopped, "restore", lambda process, number=None: by.append((process.ns_pid, number)))
    finishing.stop(_session(Member(10), Member(20, 10), Member(30, 10, is_dead=True), leave_stopped=all_of_them))
    assert by == [*([(10, signal.SIGSTOP)] if all_of_them else []), (20, None)]


def test_nobody_goes_before_nobody_dies_with_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """EXITKILL goes from all, then the guardian, by one call; only then the first of them is let go."""
    done: list[object] = []
    session = _session(Member(10, threads=(11,)), Member(20, 10))
    monkeypatch.setattr("torpor.kernel.ptrace.set_options", lambda tid, options: done.append((tid, options)))
    session.guardian = SimpleNamespace(dismiss=lambda **_: done.append("dismissed"))  # type: ignore[assignment]
    for thread in session.iter_threads():
        tid = thread.runner.tid
        thread.runner.thread.detach = lambda tid=tid: done.append(tid)  # type: ignore[method-assign,misc]
    finishing.commit(session)
    finishing.go(session)
    without_kill = [(tid, ptrace.PTRACE_O_TRACESYSGOOD) for tid in (10, 11, 20)]
    assert done == [*without_kill, "dismissed", 10, 11, 20]


@pytest.mark.parametrize("is_guarded", [False, True])
def test_of_two_who_would_end_the_tree_one_decides(monkeypatch: pytest.MonkeyPatch, *, is_guarded: bool) -> None:
    """With a caretaker the guardian goes first, while the kernel itself would kill; unless it stays for the caller.

    Nobody runs, if we die where only some are protected still.
    """
    done: list[object] = []
    session = _session(Member(1), guarded=(lambda guard: None) if is_guarded else None)
    session.ending = [4]
    monkeypatch.setattr("torpor.kernel.ptrace.set_options", lambda tid, options: done.append(tid))
    session.guardian = SimpleNamespace(dismiss=lambda **_: done.append("dismissed"))  # type: ignore[assignment]

    @contextmanager
    def ahead() -> Iterator[None]:
        done.append("ahead")
        yield
        done.append("behind")

    session.caretaker = SimpleNamespace(  # type: ignore[assignment]
        add=lambda steps, instead_of: done.append(instead_of), ahead=ahead
    )
    finishing.commit(session)
    assert done == [*([] if is_guarded else ["dismissed"]), "ahead", 1, [4], "behind"]
