"""Sessions and groups as images are to have them: a shell's job leads a session, and takes its own along."""

from types import SimpleNamespace
from typing import cast

import pytest

from torpor.engine.family import belongings
from torpor.objects.model import DumpProcess

_SHELL = 50


def tree(*members: tuple[int, int, int]) -> list[DumpProcess]:
    """Processes by pid, session and group, the root first."""
    made = []
    for pid, session, group in members:
        status = SimpleNamespace(ns_sids=(9999, session), ns_pgids=(9999, group))
        made.append(cast("DumpProcess", SimpleNamespace(ns_pid=pid, status=status)))
    return made


@pytest.mark.parametrize("own_session", [False, True])
def test_a_tree_with_its_own_session_stays_as_it_is(own_session: bool) -> None:
    found = belongings(tree((100, 100, 100), (101, 100, 101), (102, 102, 102)), own_session=own_session)
    assert found == {100: (100, 100), 101: (100, 101), 102: (102, 102)}


def test_a_shells_job_stays_the_shells_if_nobody_wants_otherwise() -> None:
    found = belongings(tree((100, _SHELL, 100), (101, _SHELL, 100)), own_session=False)
    assert found == {100: (_SHELL, 100), 101: (_SHELL, 100)}


def test_a_shells_job_leads_a_session_and_takes_its_groups_along() -> None:
    found = belongings(
        tree((100, _SHELL, 100), (101, _SHELL, 100), (102, _SHELL, 102), (103, 103, 103)), own_session=True
    )
    assert found == {100: (100, 100), 101: (100, 100), 102: (100, 102), 103: (103, 103)}


def test_a_group_whose_leader_is_elsewhere_becomes_the_roots() -> None:
    """In a pipeline of a shell's, the leader of the group is its first command."""
    found = belongings(
        tree((100, _SHELL, 90), (101, _SHELL, 90), (102, _SHELL, 80), (103, _SHELL, 103)), own_session=True
    )
    assert found == {100: (100, 100), 101: (100, 100), 102: (100, 100), 103: (100, 103)}


def test_a_leader_outside_of_the_pid_namespace_has_no_number() -> None:
    found = belongings(tree((1, 0, 0), (7, 0, 0), (8, 8, 8)), own_session=True)
    assert found == {1: (1, 1), 7: (1, 1), 8: (8, 8)}
