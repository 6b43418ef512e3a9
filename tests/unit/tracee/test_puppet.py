"""Puppets in a pid namespace of their own, where each task has two numbers."""

from collections.abc import Iterator

import pytest

from torpor.base.errors import RestoreError
from torpor.base.ids import TreePid
from torpor.kernel.namespaces import CLONE_NEWPID
from torpor.kernel.procfs.status import read_status
from torpor.kernel.uapi.sched import CLONE_PARENT
from torpor.tracee import puppet, stub
from torpor.tracee.remote import Runner, kill_and_reap

pytestmark = pytest.mark.root

_SIGCHLD = 17


@pytest.fixture
def root() -> Iterator[Runner]:
    """The first process of a new pid namespace."""
    seed = stub.spawn(stub.find_area([]), keep_fds={})
    try:
        flags = CLONE_PARENT | CLONE_NEWPID
        made = puppet.clone(seed.runner, flags=flags, exit_signal=0, set_tid=[TreePid(1)])
        yield made
        kill_and_reap([made.thread])
    finally:
        kill_and_reap([seed.thread])
        seed.life.close()


def test_threads_get_the_numbers_of_the_tree(root: Runner) -> None:
    wanted = [TreePid(number) for number in (9, 3, 5)]
    made = puppet.clone_threads(root, wanted)
    try:
        assert [read_status(root.tid, runner.tid).ns_pids[-1] for runner in made] == wanted
    finally:
        kill_and_reap([root.thread, *(runner.thread for runner in made)])


def test_the_thread_whose_number_is_taken_is_the_one_that_is_named(root: Runner) -> None:
    """The two before it have been made, under other numbers of ours."""
    other = puppet.clone(root, flags=0, exit_signal=_SIGCHLD, set_tid=[TreePid(4)])
    try:
        with pytest.raises(RestoreError, match=r"^pid 4 is taken"):
            puppet.clone_threads(root, [TreePid(2), TreePid(3), TreePid(4), TreePid(5)])
    finally:
        kill_and_reap([other.thread])
