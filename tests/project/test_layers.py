"""Imports go only downward, by the layers of ARCHITECTURE.md.

Imports inside functions and for types count too, and so does a module that is only named in a string, as those are that
``load`` and ``late`` of ``base/late`` import when they are needed.
"""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

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

#: What a folder of objects may import of the others.  What lies beside the folders (the model) is everybody's.
OBJECTS_MAY_IMPORT: dict[str, frozenset[str]] = {
    "arch": frozenset(),
    "files": frozenset(),
    "memory": frozenset({"arch", "files"}),
    "task": frozenset({"arch", "memory"}),
    "ns": frozenset({"files", "memory", "task"}),
    "cgroup": frozenset(),
}
#: The same of the engine: a dump and a restore know nothing of each other, and what lies beside is of both.
ENGINE_MAY_IMPORT: dict[str, frozenset[str]] = {
    "sets": frozenset(),
    "dump": frozenset({"sets"}),
    "restore": frozenset({"sets"}),
    # They call dump and restore as whoever has torpor does.
    "jobs": frozenset({"sets"}),
}
FOLDERS = {"objects": OBJECTS_MAY_IMPORT, "engine": ENGINE_MAY_IMPORT}
#: Against the table of objects, one by one: what a file is is a piece of memory, of a network, or lies in a mount.
OBJECTS_EXCEPTIONS = {
    ("torpor.objects.files.memfd", "torpor.objects.memory.segments"),
    ("torpor.objects.files.tunfile", "torpor.objects.ns.net"),
    ("torpor.objects.files.paths", "torpor.objects.ns.mnt.views"),
}

#: Modules that are not in a layer: the package's face, which offers the engine's functions, and programs on top of all.
OUTSIDE: dict[str, frozenset[str]] = {
    "torpor": frozenset({"base", "kernel", "images", "tracee", "objects", "engine", "migrate"}),
    "torpor.__main__": frozenset(MAY_IMPORT),
    "torpor.demo": frozenset(MAY_IMPORT),
}

#: What is in torpor/__init__.py itself and below every layer.
BELOW_ALL = frozenset({"__version__"})


_NAMED = re.compile(r"torpor(\.[a-z0-9_]+)+\.?")


def module_name(path: Path, source_root: Path) -> str:
    parts = path.relative_to(source_root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported anywhere in a module; `package` is what relative imports start at."""
    # Elsewhere such a string is the name of a program, or of a file.
    nodes = list(ast.walk(tree))
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    loads = any(isinstance(call, ast.Name) and call.id in ("load", "late") for call in calls)
    for node in nodes:
        if not isinstance(node, ast.Import | ast.ImportFrom | ast.Call | ast.Constant):
            continue
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
            case ast.Constant(value=str(text)) if loads and _NAMED.fullmatch(text):
                # Whatever is done with it.  The beginning of a formatted string names a package.
                yield node.lineno, text.rstrip(".") + ".*"


def violations(text: str, module: str, *, is_package: bool = False) -> list[str]:
    """What a module imports that it may not, one line each."""
    parts = module.split(".")
    layer = parts[1] if len(parts) > 1 and module not in OUTSIDE else None
    if layer is not None and layer not in MAY_IMPORT:
        return [f"{module} is in no layer"]
    allowed = OUTSIDE[module] if layer is None else MAY_IMPORT[layer] | {layer}

    found = []
    imported = list(imported_names(ast.parse(text), module if is_package else module.rpartition(".")[0]))
    for line, name in imported:
        root, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if root != "torpor" or target in BELOW_ALL or target in allowed:
            continue
        # The package's face offers the engine: using it is importing the engine.
        if target not in MAY_IMPORT and f"torpor.{target}" not in OUTSIDE and (layer is None or "engine" in allowed):
            continue
        found.append(f"{module}:{line} imports {name}")
    return found + _violations_in_folders(imported, module)


def _violations_in_folders(imported: list[tuple[int, str]], module: str) -> list[str]:
    layer = module.split(".")[1] if "." in module else ""
    inside = f"torpor.{layer}."
    may_import = FOLDERS.get(layer, {})
    folder = module.removeprefix(inside).partition(".")[0]
    if folder not in may_import:
        return []
    found = []
    for line, name in imported:
        target = name.removeprefix(inside).partition(".")[0]
        if not name.startswith(inside) or target not in may_import or target == folder:
            continue
        if target not in may_import[folder] and not any(
            module == one and name.startswith(other) for one, other in OBJECTS_EXCEPTIONS
        ):
            found.append(f"{module}:{line} imports {name}, which lies in another folder of {layer}")
    return found


def lazily_used(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Line, module and name of what is taken from a module that ``load`` or ``late`` names: mypy does not look."""
    strings = {
        target.id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }

    def module_of(call: ast.AST) -> str | None:
        match call:
            case ast.Call(func=ast.Name(id="load" | "late"), args=[ast.Constant(value=str(text)), *_]):
                return text
            case ast.Call(func=ast.Name(id="load" | "late"), args=[ast.Name(id=name), *_]):
                return strings.get(name)
        return None

    for scope in ast.walk(tree):
        if not isinstance(scope, ast.FunctionDef | ast.Module):
            continue
        held: dict[str, str] = {}
        for node in ast.walk(scope):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if module := module_of(value):
                    held[name] = module
        for node in ast.walk(scope):
            match node:
                case ast.Attribute(value=ast.Call() as call, attr=attr) if module := module_of(call):
                    yield node.lineno, module, attr
                case ast.Attribute(value=ast.Name(id=name), attr=attr) if name in held:
                    yield node.lineno, held[name], attr
                case ast.Call(func=ast.Name(id="late"), args=[_, ast.Constant(value=str(attr))]) as call:
                    if module := module_of(call):
                        yield node.lineno, module, attr


def missing_names(text: str) -> list[str]:
    """What is taken from modules that are loaded late, and that they have not."""
    modules: dict[str, ModuleType | None] = {}
    found = []
    for line, module, name in lazily_used(ast.parse(text)):
        if module not in modules:
            try:
                modules[module] = importlib.import_module(module)
            except ModuleNotFoundError:
                modules[module] = None
        if not hasattr(modules[module], name):
            found.append(f"{line}: {module} has no {name}")
    return found


def test_what_is_loaded_late_is_there(repository: Path) -> None:
    found, n_used = [], 0
    for path in sorted((repository / "src" / "torpor").rglob("*.py")):
        text = path.read_text()
        if "base.late import" not in text:
            continue
        n_used += sum(1 for _ in lazily_used(ast.parse(text)))
        found += [f"{path.relative_to(repository)}:{each}" for each in missing_names(text)]
    assert not found, "\n".join(found)
    assert n_used > 5


@pytest.mark.parametrize(
    "text",
    [
        'load("torpor.base.log").wran("x")',
        'def f():\n    x = load("torpor.base.log")\n    x.wran("x")',
        'late("torpor.base.log", "wran")',
        '_MODULE = "torpor.base.log"\nlate(_MODULE, "wran")',
        'load("torpor.base.lgo").warn("x")',
    ],
)
def test_what_is_not_there_is_found(text: str) -> None:
    assert missing_names(text)
    assert not missing_names(text.replace("wran", "warn").replace("lgo", "log"))


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
        ("torpor.objects.files", "if TYPE_CHECKING:\n    import torpor.engine.restore.phases as phases"),
        ("torpor.objects.files.pipe", "from ...engine.restore import phases"),
        ("torpor.engine.dump.run", "importlib.import_module('torpor.cli.main')"),
        ("torpor.objects.files", "from torpor import dump"),
        ("torpor.objects.files", "import torpor"),
        ("torpor.migrate.lazy", "from torpor.rpc import service"),
        ("torpor.cli.torpor", "import torpor.demo"),
        ("torpor.utils.strings", "import os"),
        ("torpor", "from torpor.cli import main"),
        ("torpor.kernel.bad", 'load("torpor.engine.dump.run")'),
        ("torpor.kernel.bad", 'late("torpor.engine.dump.run", "dump")'),
        ("torpor.kernel.bad", '_MODULE = "torpor.engine.dump.run"\nlate(_MODULE, "dump")'),
        ("torpor.tracee.bad", 'load(f"torpor.objects.files.{name}")'),
        ("torpor.objects.files.pipe", "from torpor.objects.task import creds"),
        ("torpor.objects.task.creds", 'load("torpor.objects.ns.userns")'),
        ("torpor.engine.dump.run", "from torpor.engine.restore import namespaces"),
        ("torpor.engine.restore.reading", 'load("torpor.engine.dump.preflight")'),
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
        ("torpor", "def dump():\n    from torpor.engine.dump.run import dump"),
        ("torpor.objects.ns.userns", "from torpor.objects.task import creds"),
        ("torpor.engine.dump.run", "from torpor.engine.sets.writing import NewSet\nfrom torpor.engine import family"),
        ("torpor.objects.files.memfd", "from torpor.objects.memory.segments import SegmentDump"),
        ("torpor.demo", "import torpor\nfrom torpor.cli import criu"),
    ],
)
def test_a_downward_import_is_not(module: str, text: str) -> None:
    assert violations(text, module) == []


def test_a_package_is_where_its_relative_imports_start() -> None:
    assert violations("from . import files", "torpor.objects", is_package=True) == []
    assert violations("from .. import engine", "torpor.objects", is_package=True)
