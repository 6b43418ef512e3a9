"""Processes that entered from outside: who is waited for, and how they are told."""

import os
from collections.abc import Sequence

import pytest

from torpor.base.errors import RefusedError
from torpor.base.ids import Pid
from torpor.engine.dump import entered


def test_one_that_ends_soon_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[dict[int, list[int]]] = [{1: [2]}, {1: [2]}, {}]
    monkeypatch.setattr(entered, "find", lambda tree: answers.pop(0))
    assert entered.to_carry([Pid(os.getpid())], "refuse") == {}
    assert not answers


def test_one_that_stays_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(tree: Sequence[int]) -> dict[int, list[int]]:
        return {tree[0]: [os.getppid()]}

    monkeypatch.setattr(entered, "find", find)
    monkeypatch.setattr(entered, "_WAIT_S", 0)
    with pytest.raises(RefusedError, match=f"pid {os.getppid()} ") as caught:
        entered.to_carry([Pid(os.getpid())], "refuse")
    assert "--exec-processes=carry" in (caught.value.hint or "")
    assert entered.to_carry([Pid(os.getpid())], "leave-out") == {}
    assert entered.to_carry([Pid(os.getpid())], "carry") == {os.getpid(): [os.getppid()]}


def test_without_a_namespace_of_its_own_nothing_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listdir", lambda path: pytest.fail("everybody was looked at"))
    assert entered.find([Pid(os.getpid())]) == {}


def test_many_are_not_all_named() -> None:
    assert entered.describe([Pid(0), Pid(0)]) == "pid 0 and pid 0"
    assert entered.describe([Pid(0)] * 8).endswith("and 3 more")
