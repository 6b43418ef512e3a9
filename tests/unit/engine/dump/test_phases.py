"""The table of a dump: what can be told of it without a kernel."""

import ast
from pathlib import Path

import pytest

from torpor.engine.dump import phases as dump_phases
from torpor.engine.dump.phases import AFTER, BEFORE, DUMP, FROZEN, LAST, PRE_DUMP, DumpPhase
from torpor.engine.restore import phases as restore_phases

TABLES = {"dump": DUMP, "pre-dump": PRE_DUMP}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_stages_follow_each_other(table: tuple[DumpPhase, ...]) -> None:
    """So the table reads in the order in which it is gone through."""
    stages = [phase.stage for phase in table]
    assert stages == sorted(stages)
    assert {*stages} == {BEFORE, FROZEN, AFTER, LAST}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_each_phase_has_a_name_and_a_reason_of_its_own(table: tuple[DumpPhase, ...]) -> None:
    assert len({phase.name for phase in table}) == len(table)
    assert len({phase.why for phase in table}) == len(table)
    assert len({phase.run for phase in table}) == len(table)


def test_a_pre_dump_does_nothing_that_a_dump_does_not() -> None:
    assert {phase.run for phase in PRE_DUMP} < {phase.run for phase in DUMP}


@pytest.mark.parametrize("path", [dump_phases.__file__, restore_phases.__file__])
def test_what_may_break_a_phase_off_is_said_by_name(path: str) -> None:
    """In both tables alike: a bare True says nothing."""
    calls = [
        node
        for node in ast.walk(ast.parse(Path(path).read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Phase", "DumpPhase")
    ]
    assert any(keyword.arg == "breaks" for node in calls for keyword in node.keywords)
    assert max(len(node.args) for node in calls) == 4
