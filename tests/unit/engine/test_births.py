"""Plans for families that random forks, setsids and deaths have made, carried out in a model of the kernel."""

import random

import pytest

from torpor.base.ids import TreePid
from torpor.engine.births import (
    Birth,
    End,
    Member,
    Orphan,
    PlanError,
    SetPgid,
    SetSid,
    Step,
    plan_births,
    plan_groups,
)

ROOT = 100


class Task:
    """What the kernel knows of a process."""

    def __init__(self, pid: int, parent: int, sid: int, pgid: int) -> None:
        self.pid, self.parent, self.sid, self.pgid = pid, parent, sid, pgid
        self.reaper = False

    @property
    def relations(self) -> tuple[int, int, int]:
        return self.parent, self.sid, self.pgid


class Kernel:
    """Forks, deaths, sessions and groups, with the kernel's rules."""

    def __init__(self) -> None:
        self.tasks = {ROOT: Task(ROOT, 0, ROOT, ROOT)}
        self.tasks[ROOT].reaper = True

    def fork(self, mother: int, pid: int, *, sibling: bool = False) -> None:
        assert pid not in self.tasks
        task = self.tasks[mother]
        self.tasks[pid] = Task(pid, task.parent if sibling else mother, task.sid, task.pgid)

    def setsid(self, pid: int) -> bool:
        if any(task.pgid == pid for task in self.tasks.values()):
            return False
        task = self.tasks[pid]
        task.sid = task.pgid = pid
        return True

    def setpgid(self, pid: int, pgid: int) -> bool:
        task = self.tasks[pid]
        members = [other for other in self.tasks.values() if other.pgid == pgid]
        if task.sid == pid or (pgid != pid and not any(other.sid == task.sid for other in members)):
            return False
        task.pgid = pgid
        return True

    def end(self, pid: int) -> None:
        heir = self.tasks[pid].parent
        while not self.tasks[heir].reaper:
            heir = self.tasks[heir].parent
        del self.tasks[pid]
        for task in self.tasks.values():
            if task.parent == pid:
                task.parent = heir

    def relations(self) -> dict[int, tuple[int, int, int]]:
        return {pid: task.relations for pid, task in self.tasks.items()}


def random_kernel(rng: random.Random) -> Kernel:
    kernel = Kernel()
    pid = ROOT
    for _ in range(rng.randrange(5, 60)):
        one = rng.choice(list(kernel.tasks))
        match rng.choices(("fork", "setsid", "setpgid", "end", "reaper"), (8, 3, 3, 4, 1))[0]:
            case "fork":
                pid += 1
                kernel.fork(one, pid)
            case "setsid":
                kernel.setsid(one)
            case "setpgid":
                kernel.setpgid(one, rng.choice([one, *(task.pgid for task in kernel.tasks.values())]))
            case "reaper":
                kernel.tasks[one].reaper = True
            case "end" if one != ROOT:
                kernel.end(one)
    return kernel


def member(
    pid: int, sid: int, pgid: int, parent: Member | None, shares: frozenset[tuple[str, int]] = frozenset()
) -> Member:
    return Member(TreePid(pid), TreePid(sid), TreePid(pgid), parent, shares)


def family(kernel: Kernel) -> Member:
    members: dict[int, Member] = {}

    def add(pid: int, parent: Member | None) -> None:
        task = kernel.tasks[pid]
        members[pid] = member(pid, task.sid, task.pgid, parent)
        for child in kernel.tasks.values():
            if child.parent == pid:
                add(child.pid, members[pid])

    add(ROOT, None)
    return members[ROOT]


def carry_out(kernel: Kernel, steps: list[Step]) -> None:
    spare = 10_000
    for step in steps:
        match step:
            case Birth(child, by, sibling):
                kernel.fork(by.pid, child.pid, sibling=sibling)
            case Orphan(child, by, to):
                spare += 1
                kernel.fork(by.pid, spare)
                kernel.fork(spare, child.pid)
                before, kernel.tasks[to.pid].reaper = kernel.tasks[to.pid].reaper, True
                kernel.end(spare)
                kernel.tasks[to.pid].reaper = before
            case SetSid(who):
                assert kernel.setsid(who.pid)
            case SetPgid(who, pgid):
                assert kernel.setpgid(who.pid, pgid)
            case End(who):
                assert not any(task.parent == who.pid for task in kernel.tasks.values())
                kernel.end(who.pid)


@pytest.mark.parametrize("seed", range(20))
def test_every_history_can_be_replayed(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(40):
        wanted = random_kernel(rng)
        root = family(wanted)
        made = Kernel()
        made.tasks[ROOT].sid = made.tasks[ROOT].pgid = 0
        births = plan_births(root)
        carry_out(made, births)
        carry_out(made, plan_groups(root, births))
        assert made.relations() == wanted.relations()


def test_session_of_a_stranger() -> None:
    root = member(1, 1, 1, None)
    mother, leader = member(2, 1, 1, root), member(3, 3, 3, root)
    member(4, 3, 3, mother)
    assert leader in root.children
    with pytest.raises(PlanError, match="pid 4 is in session 3"):
        plan_births(root)


def test_tables_shared_by_cousins() -> None:
    root = member(1, 1, 1, None)
    left, right = member(2, 1, 1, root), member(3, 1, 1, root)
    shared = frozenset({("files_id", 7)})
    member(4, 1, 1, left, shared)
    member(5, 1, 1, right, shared)
    with pytest.raises(PlanError, match="pid 5 shares its files_id"):
        plan_births(root)
