"""Trees of processes: no depth is too much."""

from torpor.base.ids import Pid
from torpor.tracee.tree import Process


def test_parents_come_before_children_at_any_depth() -> None:
    root = last = Process(Pid(1), None)
    for pid in range(2, 5000):
        last.children = [Process(Pid(pid), last), Process(Pid(10000 + pid), last)]
        last = last.children[0]
    found = [process.pid for process in root.iter_tree()]
    assert len(found) == 2 * 4999 - 1
    assert found[:4999] == list(range(1, 5000))
