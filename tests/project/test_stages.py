"""What objects leave for later they leave for a declared stage, which one phase of a table goes through."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from torpor.base.typed import IntEnum
from torpor.engine.dump import phases as dump
from torpor.engine.restore import phases as restore
from torpor.objects import session

SOURCES = Path(session.__file__).parents[1]

#: Callbacks that are kept elsewhere: where, and why that is no stage.
KEPT_ELSEWHERE = {
    ("objects/session.py", "_left"): "these are the stages",
    ("objects/undo.py", "_changes"): "what is taken back goes by the end that it comes to, the newest first",
    ("objects/model.py", "questions"): "of one process, and they add to its batch: the phase 'ask' takes them up",
    ("objects/files/tty.py", "_openers"): "a table by the kind of terminal, which nobody adds to",
    ("migrate/filling.py", "_others"): "what is done when a descriptor is ready, in the loop of one command",
    ("base/lean/contextlib.py", "_ends"): "the standard ExitStack, which the bundle has from there",
    ("tracee/batch.py", "_after"): "of one batch, when it has been run",
    ("tracee/pipeline.py", "_running"): "of one thread's batch, when it has been run",
}


def _kept(text: str) -> Iterator[str]:
    """Names of attributes that hold callables, and can be added to."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            yield from (_name(each) for each in node.body if isinstance(each, ast.AnnAssign) and _holds(each))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute) and _holds(node):
            yield node.target.attr


def _name(node: ast.AnnAssign) -> str:
    return ast.unparse(node.target)


def _holds(node: ast.AnnAssign) -> bool:
    """Whether it is a container of them."""
    containers = [
        each.slice
        for each in ast.walk(node.annotation)
        if isinstance(each, ast.Subscript) and ast.unparse(each.value) in ("list", "dict", "set", "deque")
    ]
    words = {each.id for found in containers for each in ast.walk(found) if isinstance(each, ast.Name)}
    return bool(words & {"Callable", "Action", "Notify"})


def test_nobody_keeps_callbacks_elsewhere() -> None:
    found = {
        (path.relative_to(SOURCES).as_posix(), name)
        for path in SOURCES.rglob("*.py")
        for name in _kept(path.read_text())
    }
    assert found == {*KEPT_ELSEWHERE}


def test_a_list_of_callbacks_is_seen() -> None:
    """This test's own eyes."""
    assert [*_kept("class A:\n    def __init__(self):\n        self._at_end: list[Callable[[], None]] = []")] == [
        "_at_end"
    ]
    assert [*_kept("class A:\n    later: dict[object, Action] = field(default_factory=dict)")] == ["later"]
    assert [*_kept("class A:\n    run: Callable[[], list[int]]")] == []


def _members(stages: type[IntEnum]) -> dict[str, int]:
    return {name: value for name, value in vars(stages).items() if name.isupper()}


@pytest.mark.parametrize(
    ("stages", "reached"),
    [
        (session.DumpStage, [phase.run.stage for phase in dump.DUMP if isinstance(phase.run, dump.Reached)]),
        (
            session.RestoreStage,
            [each.run.stage for each in (*restore.RESTORE, *restore.LAST) if isinstance(each.run, restore.Reached)],
        ),
    ],
)
def test_one_phase_goes_through_each_stage(stages: type[IntEnum], reached: list[int]) -> None:
    """In their order: a stage that is further down is a later one."""
    assert reached == [*_members(stages).values()]


def test_a_pre_dump_goes_through_stages_of_a_dump_in_their_order() -> None:
    reached = [phase.run.stage for phase in dump.PRE_DUMP if isinstance(phase.run, dump.Reached)]
    assert [*map(int, reached)] == sorted({*map(int, reached)})


def test_each_stage_says_why() -> None:
    tree = ast.parse(Path(session.__file__).read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for stages in (session.DumpStage, session.RestoreStage):
        body = classes[stages.__name__].body[1:]
        told = [
            each.value.value
            for each in body[1::2]
            if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)
        ]
        assert len(told) == len({*told}) == len(_members(stages)) == len(body) // 2
