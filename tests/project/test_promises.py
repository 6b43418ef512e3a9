"""What type checkers see of base/records and base/typed is what is there when the engine runs, and no more.

Both stand in for modules of the standard library, and are less than those: what only the others have must be an error
when it is written, not when a dump meets it.  The same for a function that a module loaded late has not.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from torpor.base import records, typed

_RIGHT = """
from torpor.base.records import dataclass, field, fields, replace
from torpor.base.typed import IntEnum

class When(IntEnum):
    BUILD = 1
    LATER = 2

@dataclass(frozen=True, slots=True)
class Record:
    number: int
    name: str = "x"
    many: list[int] = field(default_factory=list)

def later(when: When) -> int:
    return when + 1

record = replace(Record(later(When.BUILD), name="y"), number=2)
print(record.many, [each.name for each in fields(record)], When.BUILD < When.LATER)
"""
#: A line, what mypy says of it, and what it does when it is run.
_WRONG = (
    ("When.BUILD.name", "attr-defined", AttributeError),
    ("When.BUILD.value", "attr-defined", AttributeError),
    ("list(When)", "call-overload", TypeError),
    ("len(When)", "arg-type", TypeError),
    ("When(1)", "call-arg", TypeError),
    ("3 in When", "", TypeError),
    ("dataclass(order=True)", "call-overload", TypeError),
    ("dataclass(kw_only=True)", "call-overload", TypeError),
    ("field(init=False)", "call-overload", TypeError),
    ("Record(1, colour='blue')", "call-arg", TypeError),
    ("Record()", "call-arg", TypeError),
    ("record.number = 3", "misc", AttributeError),
    ("Record(1) < Record(2)", "operator", TypeError),
    ("from torpor.engine.dump import entered; entered.fnid(1)", "attr-defined", AttributeError),
    ("from torpor.tracee import caretaker; caretaker.Caretaker(7)", "call-arg", TypeError),
    ("from torpor.base.late import late; late('torpor.base.log', 'warn').lod()", "attr-defined", AttributeError),
)


@pytest.fixture(scope="module")
def said(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Line, from 1 on, and what mypy says of it."""
    path = tmp_path_factory.mktemp("promises") / "mistakes.py"
    path.write_text("\n".join([_RIGHT.strip(), *(line for line, *_ in _WRONG)]) + "\n")
    line = [sys.executable, "-m", "mypy", "--config-file", str(repository / "pyproject.toml"), str(path)]
    done = subprocess.run(line, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    found = re.findall(rf"^.*{path.name}:(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE)
    return {int(number): code for number, code in reversed(found)}


def test_what_is_right_is_right(said: dict[int, str]) -> None:
    assert not [number for number in said if number <= len(_RIGHT.strip().splitlines())]
    exec(_RIGHT, {"__name__": "right", "print": lambda *_: None})


@pytest.mark.parametrize("number", range(len(_WRONG)), ids=[line for line, *_ in _WRONG])
def test_what_would_fail_is_an_error_before(number: int, said: dict[int, str]) -> None:
    line, code, raised = _WRONG[number]
    assert said.get(len(_RIGHT.strip().splitlines()) + number + 1, "nothing") == code or not code
    space: dict[str, object] = {"__name__": "wrong", "print": lambda *_: None}
    exec(_RIGHT, space)
    with pytest.raises(raised):
        exec(line, space)


@pytest.mark.parametrize("module", [records, typed], ids=["records", "typed"])
def test_the_stub_has_the_names_of_the_module(module: object) -> None:
    path = Path(str(module.__file__))  # type: ignore[attr-defined]
    text = path.with_suffix(".pyi").read_text()
    listed = text.partition("__all__ = [")[2].partition("]")[0]
    assert re.findall(r'"(\w+)"', listed) == module.__all__  # type: ignore[attr-defined]
