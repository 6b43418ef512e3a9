"""`torpor restore`, `restore --name` and `checkpoint` of a job, ended at the instant around letting go.

The command runs in a process forked from this one, which says when it begins to write down what will be; the signal
comes some milliseconds later, or before. Whatever the instant: the record tells the truth at once, the job runs once or
not at all, and what sleeps wakes again.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness.events import become_subreaper, time_limit_s
from harness.processes import MARK_VARIABLE, find_tree, new_mark
from harness.rounds import rounds
from torpor.base.ids import Pid
from torpor.cli import torpor
from torpor.engine import jobs
from torpor.engine.jobs import generations, registry, state_directory
from torpor.kernel import interrupts
from torpor.kernel.procfs.status import read_status
from torpor.kernel.procfs.task import is_dying

pytestmark = pytest.mark.root

N_ROUNDS = rounds(3, 100)
#: From the first word that is written down to the instant of letting go it is a millisecond or two, and more on a busy
#: machine; the whole command takes some tenths of a second.
WINDOWS_S = (0.002, 0.004, 0.02)
WHOLE_S = 0.3
SEED = 20261128


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A job called `sleeper` runs, and all of its processes bear this mark."""
    become_subreaper()
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path))
    found = new_mark()
    environment = {MARK_VARIABLE: found, "PATH": os.environ["PATH"]}
    jobs.start(["sh", "-c", "while :; do sleep 1000; done"], "sleeper", environment=environment, directory="/")
    _wait(lambda: len(find_tree(found)) == 2)
    yield found
    for pid in find_tree(found):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _wait(lambda: not find_tree(found))


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + time_limit_s(10)
    while not condition():
        _reap()
        assert time.monotonic() < deadline


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _roots(mark: str) -> list[int]:
    """The first processes of all pid namespaces in which the job is, but those that have been killed."""
    found = []
    for pid in find_tree(mark):
        with suppress(OSError):
            status = read_status(Pid(pid))
            if status.ns_tgids[-1] == 1 and not is_dying(Pid(pid)):
                found.append(pid)
    return found


def _interrupted(line: list[str], number: int, rng: random.Random) -> int:
    """Run the command in a child of ours and send it the signal around the instant; its wait status."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(reader)
            _say_when(writer)
            os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
            os.dup2(os.open(_said(), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
            code = torpor.main(line)
        except interrupts.Interrupted as stop:
            code = 128 + stop.number  # before it had begun: our handlers are its own until then
        finally:
            os._exit(code)
    os.close(writer)
    window = rng.choice((*WINDOWS_S, WHOLE_S))
    with open(reader, "rb") as stream:
        if window < WHOLE_S:
            stream.read(1)
        # The instant is what is tested; nothing is waited for.
        time.sleep(rng.uniform(0, window))
        os.kill(child, number)
        return os.waitpid(child, 0)[1]


def _said() -> Path:
    """What the last command has said."""
    return state_directory() / "said"


def _say_when(writer: int) -> None:
    for name in ("running", "about_to_sleep"):
        before = getattr(registry, name)

        def told(*args: object, _before: Callable[..., object] = before) -> object:
            os.write(writer, b"!")
            return _before(*args)

        setattr(registry, name, told)


def _check(mark: str, name: str, status: int) -> bool:
    """Whether the job runs, once it is clear that its record says what is true, and the exit code too."""
    job = next((each for each in jobs.list_jobs() if each.name == name), None)
    runs = job is not None and job.status == jobs.RUNNING
    assert _roots(mark) == ([job.pid] if runs and job is not None else []), f"{job} after {status:#x}"
    if not os.WIFSIGNALED(status):
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, 128 + signal.SIGTERM), _said().read_text()
    return runs


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_restore(mark: str, number: int) -> None:
    rng, n_running = random.Random(SEED), 0
    for _ in range(N_ROUNDS):
        assert torpor.main(["checkpoint", "sleeper"]) == 0
        assert torpor.main(["prune", "--keep-last", "1"]) == 0
        _wait(lambda: not find_tree(mark))
        status = _interrupted(["restore", "sleeper"], number, rng)
        if _check(mark, "sleeper", status):
            n_running += 1
            assert torpor.main(["restore", "sleeper"]) == 1
        else:
            assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status)
            assert jobs.find("sleeper").status == jobs.CHECKPOINTED
            assert torpor.main(["restore", "sleeper"]) == 0
        assert len(_roots(mark)) == 1
    print(f"it ran after {n_running} of {N_ROUNDS}")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_restore_of_a_copy(mark: str, number: int) -> None:
    rng, n_running = random.Random(SEED), 0
    assert torpor.main(["checkpoint", "sleeper"]) == 0
    for _ in range(N_ROUNDS):
        status = _interrupted(["restore", "sleeper", "--name", "copy"], number, rng)
        if _check(mark, "copy", status):
            n_running += 1
            jobs.kill(jobs.find("copy"), signal.SIGKILL)
        else:
            assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status)
            assert [job.name for job in jobs.list_jobs() if job.status != jobs.ENDED] == ["sleeper"]
        _wait(lambda: not find_tree(mark))
    print(f"it ran after {n_running} of {N_ROUNDS}")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_checkpoint(mark: str, number: int) -> None:
    rng, n_running = random.Random(SEED), 0
    for _ in range(N_ROUNDS):
        status = _interrupted(["checkpoint", "sleeper"], number, rng)
        if _check(mark, "sleeper", status):
            n_running += 1
            assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status)
        else:
            assert jobs.find("sleeper").status == jobs.CHECKPOINTED
            _wait(lambda: not find_tree(mark))
            assert torpor.main(["restore", "sleeper"]) == 0
        assert len(_roots(mark)) == 1
        assert all(each.is_here for each in generations.list_of("sleeper"))
        if len(generations.list_of("sleeper")) > 1:
            assert torpor.main(["prune", "--keep-last", "1"]) == 0
    print(f"it ran on after {n_running} of {N_ROUNDS}")
