"""What is taken back at which end, in which order, and what becomes of errors; what is left for a stage."""

from collections.abc import Callable

import pytest

from torpor.base.errors import RefusedError
from torpor.images.stores.memory import MemStore
from torpor.objects.policy import Policies
from torpor.objects.session import DumpContext, DumpStage
from torpor.objects.undo import LIVES, End, UndoStack, do_all


class Done:
    """What has been done, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def action(self, name: str, error: BaseException | None = None) -> Callable[[], None]:
        def act() -> None:
            self.names.append(name)
            if error is not None:
                raise error

        return act


def test_the_newest_change_is_taken_back_first() -> None:
    done, stack = Done(), UndoStack()
    for name in ("first", "second", "third"):
        stack.add(done.action(name))
    stack.undo(End.GOES_ON)
    stack.undo(End.FAILED)
    assert done.names == ["third", "second", "first"]


def test_a_dump_may_fail_when_it_has_left_the_tree_stopped() -> None:
    """What stays with a stopped tree is still taken back then."""
    done, stack = Done(), UndoStack()
    stack.add(done.action("lives"))
    stack.add(done.action("any"), (*LIVES, End.STOPPED))
    stack.undo(End.STOPPED)
    assert done.names == ["any"]
    stack.undo(End.FAILED)
    assert done.names == ["any", "lives"]


def test_nothing_is_taken_back_when_there_is_no_way_back() -> None:
    done, stack = Done(), UndoStack()
    stack.add(done.action("lives"))
    stack.clear()
    stack.undo(End.FAILED)
    assert done.names == []


@pytest.mark.parametrize("first", [None, ValueError("why it failed")])
def test_an_error_hides_no_earlier_one_and_stops_nothing(
    first: BaseException | None, capfd: pytest.CaptureFixture[str]
) -> None:
    done = Done()
    actions = [done.action("a", OSError("one")), done.action("b", RefusedError("two")), done.action("c")]
    if first is None:
        with pytest.raises(OSError, match="one"):
            do_all(actions)
    else:
        do_all(actions, first)
    assert done.names == ["a", "b", "c"]
    told = capfd.readouterr().err
    assert ("one" in told, "two" in told) == (first is not None, True)


def test_what_is_left_for_a_stage_that_is_being_gone_through_is_done_in_it() -> None:
    done, context = Done(), DumpContext(MemStore(), Policies())
    context.at(DumpStage.WRITTEN, lambda: context.at(DumpStage.WRITTEN, done.action("second")))
    context.at(DumpStage.WRITTEN, done.action("first"))
    context.reach(DumpStage.WRITTEN)
    context.reach(DumpStage.WRITTEN)
    assert done.names == ["first", "second"]


def test_a_stage_ends_with_its_first_error_unless_it_is_the_last() -> None:
    for stage, names in ((DumpStage.KNOWN, ["a"]), (DumpStage.CLOSED, ["a", "b"])):
        done, context = Done(), DumpContext(MemStore(), Policies())
        context.at(stage, done.action("a", RefusedError("no")))
        context.at(stage, done.action("b"))
        with pytest.raises(RefusedError, match="no"):
            context.reach(stage)
        assert done.names == names
