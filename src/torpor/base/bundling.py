"""Makes the file of :mod:`bundle`, when the installation is made."""

from __future__ import annotations

import ast
import marshal
from collections.abc import Iterator
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import CodeType

#: What lies in the file: packages of ours, without what only people's commands load.
PARTS = ("base", "kernel", "images", "tracee", "objects", "engine", "migrate", "rpc", "cli")
LEFT_OUT = ("torpor.cli.torpor", "torpor.cli.commands", "torpor.engine.jobs")
#: Whatever these import is read at once: the commands, and what nearly every process has.
FIRST = (
    "torpor.cli.criu.main", "torpor.cli.criu.dump", "torpor.cli.criu.restore", "torpor.objects.files.regular",
    "torpor.objects.files.pipe", "torpor.objects.files.refused", "torpor.engine.dump.entered",
)  # fmt: skip


def pack(root: Path) -> bytes:
    """The file's contents, of the sources below ``ROOT/torpor``."""
    sources = dict(iter_sources(root))
    first = _reached(sources)
    codes = {
        name: marshal.dumps(compiled(sources[name]))
        for name in (*first, *(name for name in sources if name not in first))
    }
    n_first = sum(len(codes[name]) for name in first)
    # The index is as long with other numbers of the same size: so it is made twice.
    head = _head(sources, codes, 0, n_first)
    return b"".join((_head(sources, codes, len(head), n_first), *codes.values()))


def _head(sources: dict[str, Path], codes: dict[str, bytes], at: int, n_first: int) -> bytes:
    index = {}
    for name, code in codes.items():
        index[name] = (sources[name].name == "__init__.py", at, at + len(code))
        at += len(code)
    told = marshal.dumps(index, 2)
    return b"".join((MAGIC_NUMBER, len(told).to_bytes(4, "little"), n_first.to_bytes(4, "little"), told))


def compiled(path: Path) -> CodeType:
    """The code of a module; the name that it has is replaced by the place where it lies then, when it is loaded."""
    return compile(path.read_bytes(), path.name, "exec", dont_inherit=True)


def iter_sources(root: Path) -> Iterator[tuple[str, Path]]:
    """(full name, path) of each module that belongs into the file, in order."""
    for part in PARTS:
        for path in sorted((root / "torpor" / part).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            if not f"{name}.".startswith(tuple(f"{each}." for each in LEFT_OUT)):
                yield name, path


def _reached(sources: dict[str, Path]) -> list[str]:
    """The modules that ``FIRST`` import when they are imported, as the sources say it, and these themselves."""
    found: dict[str, None] = {}
    waiting = list(FIRST)
    while waiting:
        name = waiting.pop()
        if name in sources and name not in found:
            found[name] = None
            waiting += name.rpartition(".")[0], *_imports(sources[name])
    return list(found)


def _imports(path: Path) -> Iterator[str]:
    """Names that may be modules, of the import statements outside of functions."""
    for statement in ast.parse(path.read_bytes()).body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module is not None:
            yield statement.module
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)
