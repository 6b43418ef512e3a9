"""What would stop a tree is seen while it runs, and nothing of it is touched: processes of our own, looked at."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from torpor.base.errors import NotPermittedError, RefusedError, TargetGoneError
from torpor.base.ids import Pid
from torpor.engine.dump import preflight, privileges
from torpor.engine.options import DumpOptions
from torpor.kernel.procfs.small import read_small
from torpor.kernel.procfs.stat import read_stat
from torpor.objects.cgroup import freezer
from torpor.objects.policy import FilePolicy, Policies, TerminalPolicy

_NULL = subprocess.DEVNULL
_PTRACE_TRACEME = 0


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What root may: of our own processes anybody sees enough."""
    monkeypatch.setattr(privileges, "problems", lambda: iter(()))


@contextmanager
def running(line: Sequence[str], *, session: bool = True) -> Iterator[Pid]:
    """A process that waits until we are done with it; it says when it is ready, or at once where it cannot."""
    process = subprocess.Popen(
        line, stdin=_NULL, stdout=subprocess.PIPE, stderr=_NULL, cwd="/", start_new_session=session
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield Pid(process.pid)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _program(text: str) -> list[str]:
    """It closes its pipe to us when it is ready, for pipes of others are refused."""
    ready = "import os, signal; os.write(1, b'\\n'); os.dup2(0, 1)"
    return [sys.executable, "-S", "-c", f"{text}\n{ready}\nsignal.pause()"]


def _said(pid: Pid, options: DumpOptions | None = None) -> list[str]:
    found = preflight.examine(pid, options or DumpOptions())
    return [problem.describe() for problem in found.problems]


def test_an_ordinary_one_may_be_dumped() -> None:
    with running(_program("")) as pid:
        assert _said(pid) == []
        assert not preflight.check(pid, DumpOptions()).losses


def test_nobody_is_there() -> None:
    with running(_program("")) as pid:
        pass
    with pytest.raises(TargetGoneError, match=f"no process has pid {pid}"):
        preflight.check(pid, DumpOptions())


def test_a_shells_job_is_to_be_called_one() -> None:
    with running(_program(""), session=False) as pid:
        [said] = _said(pid)
        assert "whose leader is outside of the tree" in said and "--shell-job" in said
        with pytest.raises(RefusedError, match="whose leader is outside"):
            preflight.check(pid, DumpOptions())
        allowed = DumpOptions(policies=Policies(terminals=TerminalPolicy(shell_job=True)))
        assert _said(pid, allowed) == []


def test_who_is_traced_is_refused() -> None:
    libc = f"import ctypes; ctypes.CDLL(None).ptrace({_PTRACE_TRACEME}, 0, 0, 0)"
    with running(_program(libc)) as pid:
        assert f"is traced by pid {os.getpid()}" in "".join(_said(pid))


def test_a_program_that_could_not_be_started_again(tmp_path: Path) -> None:
    program = Path(shutil.copy(shutil.which("cat") or "/bin/cat", tmp_path / "mine"))
    process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=_NULL, stderr=_NULL, start_new_session=True)
    try:
        program.chmod(0o644)
        said = "".join(_said(Pid(process.pid)))
        assert f"its executable {program} may not be executed any more" in said and "chmod +x" in said
        # Before a dump it is the first of what is told; the pipe that leads out of the tree comes with it.
        with pytest.raises(RefusedError, match="may not be executed"):
            preflight.check(Pid(process.pid), DumpOptions())
    finally:
        process.communicate()


def test_a_mapping_that_goes_meanwhile_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that maps and unmaps all the time, or is just being started, has the rest of it looked at."""
    program = Path(shutil.copy(os.path.realpath(shutil.which("cat") or "/bin/cat"), tmp_path / "mine"))

    def dump_one(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("torpor.objects.memory.vmas.dump_one", dump_one)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=_NULL, start_new_session=True) as process:
        program.chmod(0o644)
        assert "may not be executed any more" in "".join(_said(Pid(process.pid)))
        process.communicate()


def test_a_pipe_that_leads_out_is_refused_unless_it_may() -> None:
    """Whoever has its other end is told; that we have one, who ask, is no matter."""
    reader, writer = os.pipe()
    process = subprocess.Popen(_program(""), stdin=reader, stdout=subprocess.PIPE, stderr=_NULL, start_new_session=True)
    os.close(reader)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        assert _said(Pid(process.pid)) == []
        with subprocess.Popen(["sleep", "1000"], pass_fds=(writer,)) as holder:
            try:
                assert f"whose other end is outside of the tree: pid {holder.pid}" in "".join(_said(Pid(process.pid)))
                policies = Policies(files=FilePolicy(external_pipes=True))
                assert _said(Pid(process.pid), DumpOptions(policies=policies)) == []
            finally:
                holder.kill()
    finally:
        os.close(writer)
        process.kill()
        process.communicate()


def test_files_that_cannot_be_carried_are_named() -> None:
    """By the same table as in the dump; what is refused is told once for each, and nothing of it is touched."""
    text = "import os; held = os.open('/proc/self/mem', os.O_RDWR); other = os.memfd_create('fine')"
    with running(_program(text)) as pid:
        before = sorted(os.listdir(f"/proc/{pid}/fd"))
        assert _said(pid) == []
        assert sorted(os.listdir(f"/proc/{pid}/fd")) == before
    other = f"import os; held = os.open('/proc/{os.getpid()}/oom_score_adj', os.O_RDWR)"
    with running(_program(other)) as pid:
        [said] = _said(pid)
        assert f"sets pid {os.getpid()}, which is outside of the tree" in said


def test_a_frozen_one_is_refused_unless_it_is_thawed_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freezer, "frozen_group", lambda pid: "freezer:/some")
    with running(_program("")) as pid:
        # Whoever runs is not even asked about.
        assert _said(pid) == []
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        with pytest.raises(RefusedError, match=r"is frozen by the control group freezer:/some"):
            preflight.check(pid, DumpOptions())
        preflight.check(pid, DumpOptions(), by_freezer=True)


@pytest.mark.parametrize("place", ["get_signal", "do_freezer_trap", "0"])
def test_one_that_is_frozen_in_its_sleep(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A freezer of v2 leaves it in the state S; where the kernel keeps it not every kernel tells."""
    monkeypatch.setattr(freezer, "frozen_group", lambda pid: "/some")
    name = "torpor.engine.dump.preflight.read_small"
    monkeypatch.setattr(name, lambda path: place if path.endswith("/wchan") else read_small(path))
    with running(_program("")) as pid:
        while read_stat(pid).state != "S":
            os.sched_yield()
        with pytest.raises(RefusedError, match=r"is frozen by the control group /some"):
            preflight.check(pid, DumpOptions())


def test_the_dead_leader_of_threads_that_live() -> None:
    text = (
        "import ctypes, threading, os\n"
        "def go_on():\n    os.write(1, b'\\n')\n    threading.Event().wait()\n"
        "threading.Thread(target=go_on).start()\n"
        "ctypes.CDLL(None).syscall(60, 0)\n"
    )
    with running([sys.executable, "-S", "-c", text]) as pid:
        # It is dead for the kernel a moment after its thread has said something.
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            os.sched_yield()
        assert "main thread" in "".join(_said(pid))


def test_several_are_told_at_once() -> None:
    text = f"import os; held = os.open('/proc/{os.getpid()}/oom_score_adj', os.O_RDWR)"
    with running(_program(text), session=False) as pid:
        with pytest.raises(RefusedError) as caught:
            preflight.check(pid, DumpOptions())
        told = [str(caught.value), *caught.value.__notes__]
        assert any("outside of the tree" in each for each in told) and any("leader" in each for each in told)


def test_without_leave_nothing_else_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privileges, "problems", lambda: iter([NotPermittedError("not you")]))
    monkeypatch.setattr(preflight, "_iter_tree", lambda *_: pytest.fail("it was looked at"))
    with pytest.raises(NotPermittedError, match="not you"):
        preflight.check(Pid(os.getpid()), DumpOptions())


def test_room_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (100, 1000))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: raised.append(limits))
    assert not list(privileges.room_for(50)) and not raised
    assert not list(privileges.room_for(500)) and raised == [(1000, 1000)]
    [problem] = privileges.room_for(1000)
    assert "1000 processes" in str(problem) and "ulimit -Hn 1032" in (problem.hint or "")


def test_we_are_no_target() -> None:
    assert any("cannot checkpoint itself" in each for each in _said(Pid(os.getpid())))
