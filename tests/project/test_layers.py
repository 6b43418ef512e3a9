"""Imports go only downward, by the layers of ARCHITECTURE.md; imports inside functions and for types count too."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

#: What each layer may import besides itself. Lowest first; a layer not named here does not exist.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "base": frozenset(),
    "kernel": frozenset({"base"}),
    "images": frozenset({"base"}),
    "tracee": frozenset({"base", "kernel"}),
    "objects": frozenset({"base", "kernel", "images", "tracee"}),
    "engine": frozenset({"base", "kernel", "images", "tracee", "objects"}),
    "migrate": frozenset({"base", "kernel", "images", "tracee", "objects", "engine"}),
    # The service starts page servers when asked to; nothing in migrate knows the service.
    "rpc": frozenset({"base", "kernel", "images", "tracee", "objects", "engine", "migrate"}),
    "containers": frozenset({"base", "kernel", "images", "tracee", "objects", "engine", "migrate", "rpc"}),
    "cli": frozenset({"base", "kernel", "images", "tracee", "objects", "engine", "migrate", "rpc", "containers"}),
}

#: Modules that are not in a layer: the package's face, which offers the engine's functions, and programs on top of all.
OUTSIDE: dict[str, frozenset[str]] = {
    "torpor": frozenset({"base", "kernel", "images", "tracee", "objects", "engine"}),
    "torpor.__main__": frozenset(MAY_IMPORT),
    "torpor.demo": frozenset(MAY_IMPORT),
}

#: What is in torpor/__init__.py itself and below every layer.
BELOW_ALL = frozenset({"__version__"})


def module_name(path: Path, source_root: Path) -> str:
    parts = path.relative_to(source_root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported anywhere in a module; `package` is what relative imports start at."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - level + 1], *([module] if module else [])]) if level else module
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in names)
            case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__")):
                if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                    yield node.lineno, node.args[0].value


def violations(text: str, module: str, *, is_package: bool = False) -> list[str]:
    """What a module imports that it may not, one line each."""
    parts = module.split(".")
    layer = parts[1] if len(parts) > 1 and module not in OUTSIDE else None
    if layer is not None and layer not in MAY_IMPORT:
        return [f"{module} is in no layer"]
    allowed = OUTSIDE[module] if layer is None else MAY_IMPORT[layer] | {layer}

    found = []
    for line, name in imported_names(ast.parse(text), module if is_package else module.rpartition(".")[0]):
        root, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if root != "torpor" or target in BELOW_ALL or target in allowed:
            continue
        # The package's face offers the engine: using it is importing the engine.
        if target not in MAY_IMPORT and f"torpor.{target}" not in OUTSIDE and (layer is None or "engine" in allowed):
            continue
        found.append(f"{module}:{line} imports {name}")
    return found


def test_the_package_keeps_to_its_layers(repository: Path) -> None:
    source_root = repository / "src"
    found = []
    for path in sorted((source_root / "torpor").rglob("*.py")):
        is_package = path.name == "__init__.py"
        found += violations(path.read_text(), module_name(path, source_root), is_package=is_package)
    assert not found, "\n".join(["imports against the layers:", *found])


def test_the_table_is_in_order() -> None:
    lower: set[str] = set()
    for layer, allowed in MAY_IMPORT.items():
        assert allowed <= lower, f"{layer} may import something that stands below it in the table"
        lower.add(layer)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("torpor.base.log", "import torpor.kernel.prctl"),
        ("torpor.kernel.prctl", "from torpor import images"),
        ("torpor.images.store", "from torpor.kernel import prctl"),
        ("torpor.tracee.task", "def f():\n    from torpor.images import store"),
        ("torpor.objects.files", "if TYPE_CHECKING:\n    import torpor.engine.phases as phases"),
        ("torpor.objects.files.pipe", "from ...engine import phases"),
        ("torpor.engine.dump", "importlib.import_module('torpor.cli.main')"),
        ("torpor.objects.files", "from torpor import dump"),
        ("torpor.objects.files", "import torpor"),
        ("torpor.migrate.lazy", "from torpor.rpc import service"),
        ("torpor.cli.torpor", "import torpor.demo"),
        ("torpor.utils.strings", "import os"),
        ("torpor", "from torpor.cli import main"),
    ],
)
def test_an_upward_import_is_found(module: str, text: str) -> None:
    assert violations(text, module)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("torpor.base.log", "import os\nfrom torpor import __version__\nfrom . import errors"),
        ("torpor.images.store", "from torpor.base.errors import ImageError"),
        ("torpor.objects.files.pipe", "from ...images import messages\nfrom .. import mm\nfrom .regular import dump"),
        ("torpor.rpc.service", "from torpor import dump, restore"),
        ("torpor.cli.criu.main", "from torpor.containers import podman\nimport torpor.engine"),
        ("torpor", "def dump():\n    from torpor.engine.dump import dump"),
        ("torpor.demo", "import torpor\nfrom torpor.cli import criu"),
    ],
)
def test_a_downward_import_is_not(module: str, text: str) -> None:
    assert violations(text, module) == []


def test_a_package_is_where_its_relative_imports_start() -> None:
    assert violations("from . import files", "torpor.objects", is_package=True) == []
    assert violations("from .. import engine", "torpor.objects", is_package=True)
