"""Whose setting a file is: a question to all processes of the tree, asked once and not for each file."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from torpor.images.stores.memory import MemStore
from torpor.objects.files import regular
from torpor.objects.policy import Policies
from torpor.objects.session import DumpContext, RestoreContext


class _Counted(list[Any]):
    """Processes, and how often one of them was looked at."""

    n_looked = 0

    def __iter__(self) -> Iterator[Any]:
        for each in super().__iter__():
            self.n_looked += 1
            yield each


def _processes(n: int) -> _Counted:
    return _Counted(SimpleNamespace(pid=1000 + n, ns_pid=1 + n, is_born=n % 2 == 0) for n in range(n))


def test_of_a_dump() -> None:
    context = DumpContext(MemStore(), Policies())
    context.processes = processes = _processes(100)
    assert all(number in context.part(regular._DumpedPids).all for number in [*range(1, 101), *range(1000, 1100)])
    assert 101 not in context.part(regular._DumpedPids).all
    assert processes.n_looked <= 200


def test_of_a_restore() -> None:
    context = RestoreContext(MemStore(), Policies())
    context.processes = processes = _processes(100)
    own = context.part(regular._RestoredPids)
    assert all(number in own for number in [*range(1, 101), *range(1000, 1100, 2)])
    assert processes.n_looked <= 200
    assert 1001 not in own  # not born, and so none of ours
    processes[1].is_born = True
    assert 1001 in own
