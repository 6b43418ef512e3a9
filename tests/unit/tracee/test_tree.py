"""Trees of processes: no depth is too much, and nobody is looked at in vain."""

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from torpor.base.ids import Pid
from torpor.kernel.procfs.task import read_children
from torpor.tracee import tree
from torpor.tracee.tree import Process


def test_parents_come_before_children_at_any_depth() -> None:
    root = last = Process(Pid(1), None)
    for pid in range(2, 5000):
        last.children = [Process(Pid(pid), last), Process(Pid(10000 + pid), last)]
        last = last.children[0]
    found = [process.pid for process in root.iter_tree()]
    assert len(found) == 2 * 4999 - 1
    assert found[:4999] == list(range(1, 5000))


@pytest.fixture
def family() -> Iterator[tuple[Pid, list[Pid]]]:
    """A process with three children that have none."""
    with subprocess.Popen(
        ["sh", "-c", "sleep 1000 & sleep 1000 & sleep 1000 & echo ready; wait"], stdout=subprocess.PIPE
    ) as root:
        assert root.stdout is not None
        assert root.stdout.readline() == b"ready\n"
        pids = read_children(Pid(root.pid))
        yield Pid(root.pid), pids
        for pid in (*pids, root.pid):
            os.kill(pid, signal.SIGKILL)


def _looks(monkeypatch: pytest.MonkeyPatch, hidden: Pid | None = None) -> list[Pid]:
    """At whose children is looked; *hidden* is not there the first time."""
    looked: list[Pid] = []

    def read(pid: Pid) -> list[Pid]:
        looked.append(pid)
        return [child for child in read_children(pid) if child != hidden or looked.count(pid) > 1]

    monkeypatch.setattr(tree, "read_children", read)
    return looked


def test_whoever_had_no_child_is_looked_at_once(family: tuple[Pid, list[Pid]], monkeypatch: pytest.MonkeyPatch) -> None:
    root, children = family
    looked = _looks(monkeypatch)
    with tree.freeze(root) as frozen:
        assert [process.pid for process in frozen.processes] == [root, *children]
    assert looked == [root, *children, root]


def test_a_sibling_that_comes_late_is_found(family: tuple[Pid, list[Pid]], monkeypatch: pytest.MonkeyPatch) -> None:
    root, children = family
    late = children[1]
    looked = _looks(monkeypatch, late)
    with tree.freeze(root) as frozen:
        assert {process.pid for process in frozen.processes} == {root, *children}
    assert looked == [root, children[0], children[2], root, late, root]
