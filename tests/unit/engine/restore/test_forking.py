"""A plan of births is carried out by system calls: in a model of the kernel, everyone ends up where they were."""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from torpor.base.errors import RestoreError
from torpor.base.ids import Pid, TreePid
from torpor.engine.options import RestoreOptions
from torpor.engine.restore import forking
from torpor.engine.restore.session import RestoreSession
from torpor.kernel.arch import nr
from torpor.kernel.uapi.prctl import PR_SET_CHILD_SUBREAPER
from torpor.kernel.uapi.sched import CLONE_FILES, CLONE_PARENT, CLONE_VM
from torpor.objects.model import RestoreProcess
from torpor.objects.policy import Policies, TerminalPolicy
from torpor.objects.task import keyrings, registers
from torpor.tracee import puppet
from unit.engine.restore.making import Member, read, stored
from unit.engine.test_births import Kernel, Task

_ROOT = 100
#: In the session of one who lives elsewhere in the tree, and left to the root by whoever bore it.
_ORPHAN = (Member(100), Member(105, 100, 100, 100), Member(101, 105, 101, 101), Member(103, 100, 101, 101))


class Puppet:
    """What drives a task of the model."""

    def __init__(self, world: "World", pid: int) -> None:
        self.world, self.pid, self.tid = world, pid, Pid(pid)
        self.thread: Any = SimpleNamespace(tgid=Pid(pid), tid=Pid(pid), puppet=self)

    def run(self, batch: Any) -> None:
        for number, *args in batch.calls:
            self.world.call(self.pid, number, *args)


class _Batch:
    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def call(self, number: int, *args: int) -> None:
        self.calls.append((number, *args))


class World:
    """The kernel, and what it was asked for."""

    def __init__(self) -> None:
        self.kernel = Kernel()
        self.flags: dict[int, int] = {}
        self.waited_for: list[int] = []
        #: What a clone of no particular pid gets.
        self.next_pids: Iterator[int] = iter(range(5000, 6000))

    def clone(self, runner: Puppet, *, flags: int, exit_signal: int, set_tid: Sequence[int]) -> Puppet:
        pid = set_tid[0] if set_tid else next(self.next_pids)
        self.flags[pid] = flags & ~CLONE_PARENT
        self.kernel.fork(runner.pid, pid, sibling=bool(flags & CLONE_PARENT))
        return Puppet(self, pid)

    def call(self, pid: int, number: int, *args: int) -> None:
        if number == nr.setsid:
            assert self.kernel.setsid(pid), f"setsid of {pid}"
        elif number == nr.setpgid:
            assert self.kernel.setpgid(pid, args[1] or pid), f"setpgid of {pid} to {args[1]}"
        elif number == nr.prctl:
            assert args[0] == PR_SET_CHILD_SUBREAPER
            self.kernel.tasks[pid].reaper = bool(args[1])
        else:
            assert number == nr.wait4
            self.waited_for.append(args[0])

    def kill(self, threads: Sequence[Any]) -> None:
        for thread in threads:
            self.kernel.end(thread.puppet.pid)

    def status(self, pid: int) -> Any:
        return SimpleNamespace(ns_pids=(9999, pid), ppid=self.kernel.tasks[pid].parent)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(forking, "Batch", _Batch)
    monkeypatch.setattr(puppet, "clone", made.clone)
    monkeypatch.setattr(forking, "kill_and_reap", made.kill)
    monkeypatch.setattr(forking, "read_status", made.status)
    monkeypatch.setattr(keyrings, "restore_at_birth", lambda process: None)
    return made


def _session(world: World, *members: Member, shell_job: bool = False) -> RestoreSession:
    policies = Policies(terminals=TerminalPolicy(shell_job=shell_job))
    session = read(stored(members), RestoreOptions(policies=policies))
    session.channel.close()
    root: Any = Puppet(world, _ROOT)
    session.root.threads[0].made = root
    session.live.append(root)
    if members[0].sid not in (0, _ROOT) or shell_job:
        world.kernel.tasks[_ROOT] = Task(_ROOT, 0, members[0].sid, members[0].sid)
    else:
        # A puppet is born in our session.
        world.kernel.tasks[_ROOT] = Task(_ROOT, 0, 1, 1)
    world.kernel.tasks[_ROOT].reaper = True
    return session


@pytest.mark.parametrize(
    "members",
    [
        # A pipeline of a shell's: a group led by one of them.
        (Member(100), Member(101, 100, 100, 101), Member(102, 100, 100, 101)),
        # A daemon: its parent and its session's leader are dead, the root is its parent now.
        (Member(100), Member(150, 100, 140, 140)),
        # Born before its parent became a leader.
        (Member(100), Member(101, 100, 101, 101), Member(102, 101, 100, 100)),
        # The group's leader is dead.
        (Member(100), Member(101, 100, 100, 99)),
        _ORPHAN,
    ],
    ids=["pipeline", "daemon", "early", "group", "orphan"],
)
def test_everyone_ends_up_in_their_session_and_group_and_below_their_parent(
    world: World, members: tuple[Member, ...]
) -> None:
    session = _session(world, *members)
    forking.make_children(session)
    found = {pid: task.relations for pid, task in world.kernel.tasks.items()}
    assert found == {each.pid: (each.ppid, each.sid or each.pid, each.pgid or each.pid) for each in members}
    assert {runner.tid for runner in session.live} == {each.pid for each in members}
    assert not any(task.reaper for pid, task in world.kernel.tasks.items() if pid != _ROOT)


def test_one_in_between_has_nobodys_pid(world: World) -> None:
    """What a clone is given by chance may be the number of a thread that is still to come: another is taken."""
    world.next_pids = iter((4711, 7000))
    forking.make_children(_session(world, *_ORPHAN, Member(106, 100, 100, 100, threads=(4711,))))
    assert world.waited_for == [4711, 7000]
    assert {*world.kernel.tasks} == {100, 101, 103, 105, 106}


def test_tables_are_shared_by_the_flags_of_clone(world: World) -> None:
    own = Member(101, 100, 100, 100)
    sharing = Member(102, 100, 100, 100, ids={"vm_id": 100, "files_id": 100})
    forking.make_children(_session(world, Member(100), own, sharing))
    assert world.flags == {101: 0, 102: CLONE_VM | CLONE_FILES}


def test_what_children_share_is_there_before_they_are_born(world: World) -> None:
    """Each step once for each that bears, its parents' before; not for the dead, and not for whoever has no child."""
    done: list[tuple[int, frozenset[int]]] = []

    def step(session: RestoreSession, process: RestoreProcess) -> None:
        done.append((process.ns_pid, frozenset(world.kernel.tasks)))

    members = (Member(100), Member(101, 100, 100, 100), Member(102, 101, 100, 100), Member(103, 100, 100, 100))
    session = _session(world, *members)
    forking.make_children(session, [step])
    assert [(pid, pid + 1 in there) for pid, there in done] == [(100, False), (101, False)]
    assert [process.has_borne for process in session.everyone] == [True, True, False, False]
    assert session.everyone[2].cloned_from is session.everyone[1]


@pytest.mark.parametrize(("sid", "pgid", "what"), [(50, 50, "session 50"), (100, 50, "process group 50")])
def test_a_shells_job_needs_to_be_called_one(world: World, sid: int, pgid: int, what: str) -> None:
    with pytest.raises(RestoreError, match=f"the {what} of pid 100 is not in the images") as caught:
        forking.make_children(_session(world, Member(100, sid=sid, pgid=pgid)))
    assert "--shell-job" in caught.value.describe()


def test_a_dead_root_is_refused(world: World) -> None:
    session = _session(world, Member(100, is_dead=True))
    with pytest.raises(RestoreError, match="root, pid 100, is dead"):
        forking.make_root(session)


def test_threads_get_the_ids_that_they_had(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    session = _session(world, Member(100, threads=(101, 105)), Member(110, 100, is_dead=True))
    asked: list[list[TreePid]] = []

    def clone_threads(runner: Puppet, tids: list[TreePid]) -> list[Puppet]:
        asked.append(tids)
        return [Puppet(world, tid) for tid in tids]

    monkeypatch.setattr(puppet, "clone_threads", clone_threads)
    monkeypatch.setattr(keyrings, "restore_before_threads", lambda process: None)
    given: list[int] = []
    monkeypatch.setattr(registers, "restore_xstate", lambda thread, core: given.append(thread.tid))
    forking.make_threads(session)
    assert asked == [[101, 105]]
    assert [thread.runner.tid for thread in session.root.threads] == given == [100, 101, 105]
