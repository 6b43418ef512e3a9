"""Docstrings: what is public says in a sentence what it promises, and all of them have one form."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

#: Fewer words ("Set it.", "Both maps.") say no more than the name does.
MIN_WORDS = 3
#: Lists of arguments, as other projects have them.
FOREIGN = re.compile(r"^\s*(?:Args|Arguments|Parameters|Returns|Raises|Yields):?\s*$|:(?:param|return|raise)s?\b", re.M)
#: What backticks are for: code, in two pairs of them, and references.  An argument is *argument*.
TICKED = re.compile(r"``[^`]+``|:\w+:`[^`]+`")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(node: ast.AST, above: str = "") -> Iterator[tuple[str, Definition]]:
    """Every class, function and method below *node* that is not within a function, with its name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            yield above + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from definitions(child, f"{above}{child.name}.")


def too_short(tree: ast.Module) -> list[str]:
    """The public ones among the definitions whose docstring has less than MIN_WORDS; private classes' methods, too."""
    return [
        f"{node.lineno}: {name}: {text!r}"
        for name, node in definitions(tree)
        if not node.name.startswith("_") or node.name.endswith("__")
        if (text := ast.get_docstring(node)) is not None and len(text.split()) < MIN_WORDS
    ]


def of_another_form(tree: ast.Module) -> list[str]:
    """The docstrings, of what is private as well, that are not written as the others are."""
    texts = [(name, ast.get_docstring(one) or "") for name, one in (("the module", tree), *definitions(tree))]
    lists = [f"{name}: {found.group().strip()!r}" for name, text in texts if (found := FOREIGN.search(text))]
    return lists + [f"{name}: a lone backtick" for name, text in texts if "`" in TICKED.sub("", text)]


def trees(repository: Path) -> Iterator[tuple[str, ast.Module]]:
    source = repository / "src"
    for path in sorted(source.rglob("*.py")):
        yield path.relative_to(source).as_posix(), ast.parse(path.read_text())


def test_what_is_public_says_what_it_promises(repository: Path) -> None:
    assert [f"{name}:{each}" for name, tree in trees(repository) for each in too_short(tree)] == []


def test_all_have_one_form(repository: Path) -> None:
    assert [f"{name}: {each}" for name, tree in trees(repository) for each in of_another_form(tree)] == []


@pytest.mark.parametrize(
    "text",
    [
        'def restore() -> None:\n    """Set it."""\n',
        'class _Private:\n    @property\n    def length(self) -> int:\n        """Bytes."""\n',
        'class Context:\n    """Of one dump."""\n\n    def __call__(self) -> None:\n        """Do it."""\n',
    ],
)
def test_a_short_one_is_found(text: str) -> None:
    assert len(too_short(ast.parse(text))) == 1


def test_what_needs_none_is_left_alone() -> None:
    text = 'def _helper() -> None:\n    """Set it."""\n\n\nclass Close:\n    """Closes the file."""\n'
    assert too_short(ast.parse(text)) == []


@pytest.mark.parametrize("line", ["Args:", ":param name: its name", "Fills `into`.", "    Raises"])
def test_another_form_is_found(line: str) -> None:
    assert len(of_another_form(ast.parse(f'"""Title.\n\n{line}\n"""\n'))) == 1


@pytest.mark.parametrize(
    "line", ["``code`` and *argument*", "See :func:`read`.", "Raises ImageError where it is none."]
)
def test_our_own_form_is_not(line: str) -> None:
    assert of_another_form(ast.parse(f'"""Title.\n\n{line}\n"""\n')) == []
