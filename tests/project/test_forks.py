"""A child of ours between fork and exit must not run a handler of ours that raises: it would go on as if it were we."""

import ast
from pathlib import Path

#: Forks elsewhere than within ``errand.deaf()``, by module and function, and why.
OTHERS = {
    ("base/background.py", "to_background"): "the child is to go on as we, and who was we ends",
    ("objects/ns/limits.py", "_go"): "in a child that is deaf",
    ("tracee/caretaker.py", "_wait"): "in a child without handlers of ours",
    ("engine/jobs/start.py", "_start"): "in a detached process, without handlers of ours",
    ("migrate/behind.py", "_keep"): "in a detached process, without handlers of ours",
}


def _is_call(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == name


def _is_deaf(node: ast.AST) -> bool:
    return _is_call(node, "errand.deaf") or _is_call(node, "deaf")


def _forks(node: ast.AST, function: str = "") -> list[str]:
    """The functions in which a fork is not guarded."""
    if isinstance(node, ast.FunctionDef):
        function = node.name
    if isinstance(node, ast.With) and any(_is_deaf(item.context_expr) for item in node.items):
        return []
    found = [function] if _is_call(node, "os.fork") or _is_call(node, "os.forkpty") else []
    return found + [each for child in ast.iter_child_nodes(node) for each in _forks(child, function)]


def test_children_are_forked_without_signals(repository: Path) -> None:
    source = repository / "src/torpor"
    found = {
        (str(path.relative_to(source)), function)
        for path in source.rglob("*.py")
        for function in _forks(ast.parse(path.read_text()))
    }
    assert found == set(OTHERS)
