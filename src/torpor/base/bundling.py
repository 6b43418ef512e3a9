"""Makes the file of :mod:`bundle`, when the installation is made.

What is in it is what the sources say, without what only readers and type checkers look at: docstrings, annotations of
functions, imports for those alone (``lean_tree``); and of the standard library's modules those parts that are wanted,
where a stand-in has them (:mod:`torpor.base.lean`).
"""

from __future__ import annotations

import ast
import marshal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import MAGIC_NUMBER
from itertools import accumulate, pairwise
from pathlib import Path
from types import CodeType

#: What lies in the file: packages of ours, without what only people's commands load.
PARTS = ("base", "kernel", "images", "tracee", "objects", "engine", "migrate", "rpc", "cli")
LEFT_OUT = ("torpor.cli.torpor", "torpor.cli.commands", "torpor.engine.jobs")
#: With the first of each, what all of it imports is loaded in one go: the commands, and what nearly every process has.
HEADS = (
    ("torpor.cli.criu.main",),
    ("torpor.engine.dump.run", "torpor.objects.files.regular", "torpor.objects.files.refused"),
    ("torpor.engine.restore.run", "torpor.objects.files.regular"),
)
_LEAN = "torpor.base.lean"
#: What stands in for a module: ours, or what that module itself takes its names from.
STAND_INS = {
    "bisect": "_bisect",
    "collections": "_collections",
    "collections.abc": "_collections_abc",
    "contextlib": f"{_LEAN}.contextlib",
    "ctypes": f"{_LEAN}.ctypes",
    "functools": f"{_LEAN}.functools",
    "struct": "_struct",
}

_RECORDS = "torpor.base.records"
_HEADERS = "torpor.kernel.uapi."


def pack(root: Path) -> bytes:
    """The file's contents, of the sources below ``ROOT/torpor``.

    By another Python, which does not note the columns of each instruction: they are a fifth of the code, and for the
    marks below the lines of a traceback.
    """
    line = [sys.executable, "-X", "no_debug_ranges", "-c", f"from {__name__} import main; main()", str(root)]
    home = str(Path(__file__).parents[2])
    return subprocess.run(line, stdout=subprocess.PIPE, check=True, env={"PYTHONPATH": home}).stdout


def main() -> None:
    """Write them to standard output."""
    sys.stdout.buffer.write(_packed(Path(sys.argv[1])))


def _packed(root: Path) -> bytes:
    sources = dict(iter_sources(root))
    orders = {
        head: list(dict.fromkeys(name for each in (*others, head) for name in _reached(sources, each)))
        for head, *others in HEADS
    }
    # Modules of the same orders are one group; each other module is one by itself.
    members: dict[object, list[str]] = {}
    for name in sources:
        members.setdefault(tuple(head for head, order in orders.items() if name in order) or name, []).append(name)
    index = {
        name: (sources[name].name == "__init__.py", group, place)
        for group, names in enumerate(members.values())
        for place, name in enumerate(names)
    }
    places = {name: str(path.relative_to(root)) for name, path in sources.items()}
    groups = [marshal.dumps([compiled(sources[name], places[name]) for name in names]) for names in members.values()]
    # The index is as long with other numbers of the same size: so it is made twice.
    at = len(_head(index, groups, orders, 0))
    return b"".join((_head(index, groups, orders, at), *groups))


def _head(index: dict[str, tuple[bool, int, int]], groups: list[bytes], orders: dict[str, list[str]], at: int) -> bytes:
    ends = list(accumulate(map(len, groups), initial=at))
    told = marshal.dumps((index, list(pairwise(ends)), orders), 2)
    return b"".join((MAGIC_NUMBER, len(told).to_bytes(4, "little"), told))


def compiled(path: Path, place: str) -> CodeType:
    """The code of a module, which says of itself that it lies at *place*."""
    return compile(lean_tree(path), place, "exec", dont_inherit=True)


def iter_sources(root: Path) -> Iterator[tuple[str, Path]]:
    """(full name, path) of each module that belongs into the file, in order."""
    for part in PARTS:
        for path in sorted((root / "torpor" / part).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            if not f"{name}.".startswith(tuple(f"{each}." for each in LEFT_OUT)):
                yield name, path


def _reached(sources: dict[str, Path], name: str) -> dict[str, None]:
    """The modules that *name* imports when it is imported, and it itself: each behind those that it imports."""
    found: dict[str, None] = {}
    _walk(sources, name, set(), found)
    return found


def _walk(sources: dict[str, Path], name: str, begun: set[str], found: dict[str, None]) -> None:
    if name not in sources or name in begun:
        return
    begun.add(name)
    for other in (name.rpartition(".")[0], *_imports(lean_tree(sources[name]))):
        _walk(sources, other, begun, found)
    found[name] = None


def _imports(tree: ast.Module) -> Iterator[str]:
    """Names that may be modules, of the import statements outside of functions."""
    for statement in tree.body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module is not None:
            yield statement.module
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)


@cache
def lean_tree(path: Path) -> ast.Module:
    """The module in *path* without what is not for running, and with stand-ins."""
    tree = ast.parse(path.read_bytes())
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    has_records = any(isinstance(each, ast.ImportFrom) and each.module == _RECORDS for each in tree.body)
    made = ast.fix_missing_locations(_Lean(attributes, has_records=has_records).visit(tree))
    made = _Numbers(made).visit(made)
    assert isinstance(made, ast.Module)
    _drop_unused(made)
    return made


class _Numbers(ast.NodeTransformer):
    """Puts numbers of the kernel's headers where they are used: nothing is loaded for them, and nothing looked up."""

    def __init__(self, tree: ast.Module) -> None:
        #: What a name, or a name and an attribute of it, is.
        self._known: dict[tuple[str, str], int] = {}
        for statement in tree.body:
            if isinstance(statement, ast.ImportFrom) and f"{statement.module}.".startswith(_HEADERS):
                for alias in statement.names:
                    key = alias.asname or alias.name
                    if f"{statement.module}." == _HEADERS:
                        numbers = vars(import_module(f"{_HEADERS}{alias.name}"))
                        self._known |= {(key, name): value for name, value in numbers.items() if type(value) is int}
                    else:
                        self._known[key, ""] = vars(import_module(str(statement.module)))[alias.name]

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """The number of that name."""
        return self._number(node, node.id, "")

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        """The number that a header's module has under that name."""
        self.generic_visit(node)
        return self._number(node, node.value.id, node.attr) if isinstance(node.value, ast.Name) else node

    def _number(self, node: ast.expr, name: str, attribute: str) -> ast.expr:
        value = self._known.get((name, attribute))
        return node if value is None else ast.copy_location(ast.Constant(value), node)


def _drop_unused(tree: ast.Module) -> None:
    """What annotations alone named, or is a number, is not imported."""
    noted = [part for each in ast.walk(tree) if isinstance(each, ast.AnnAssign) for part in ast.walk(each.annotation)]
    unread = {id(part) for part in noted}
    used = {"*"} | {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in unread}
    if "__all__" in used:
        used |= {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    for statement in list(tree.body):
        if isinstance(statement, ast.Import | ast.ImportFrom) and getattr(statement, "module", "") != "__future__":
            # `import a as a` says that the module has it, for others.
            statement.names = [each for each in statement.names if _binds(each) in used or each.asname == each.name]
            if not statement.names:
                tree.body.remove(statement)


def _binds(alias: ast.alias) -> str:
    """The name that an import makes."""
    return (alias.asname or alias.name).partition(".")[0]


class _Lean(ast.NodeTransformer):
    """``lean_tree``'s work."""

    def __init__(self, attributes: set[str], *, has_records: bool) -> None:
        self._attributes = attributes
        self._has_records = has_records

    def visit_Module(self, node: ast.Module) -> ast.Module:
        """The module without its docstring, and all that is in it made lean."""
        _drop_docstring(node)
        self.generic_visit(node)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        """Its annotations stay: records are made of them."""
        _drop_docstring(node)
        node.body = [each if isinstance(each, ast.AnnAssign) else self.visit(each) for each in node.body]
        if self._has_records:
            node.body += _init_of(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        """Those of variables do not."""
        made = ast.Pass() if node.value is None else ast.Assign([node.target], node.value)
        return ast.copy_location(made, node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """The function without its docstring and without annotations of its arguments and its result."""
        _drop_docstring(node)
        node.returns = None
        every = node.args
        for argument in (*every.posonlyargs, *every.args, *every.kwonlyargs, every.vararg, every.kwarg):
            if argument is not None:
                argument.annotation = None
        self.generic_visit(node)
        return node

    def visit_If(self, node: ast.If) -> ast.If | list[ast.stmt]:
        """What is for type checkers only is not there."""
        self.generic_visit(node)
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node.orelse or [ast.Pass()]
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        """From a stand-in, if that has all the names."""
        wanted = {alias.name for alias in node.names}
        if node.module in STAND_INS and wanted <= _names_of(STAND_INS[node.module]):
            node.module = STAND_INS[node.module]
        return node

    def visit_Import(self, node: ast.Import) -> ast.Import:
        """A stand-in by the same name, if that has all that is asked of any module here."""
        for alias in node.names:
            other = STAND_INS.get(alias.name)
            if other and alias.asname is None and "." not in alias.name:
                wanted = self._attributes & set(dir(import_module(alias.name)))
                if wanted <= _names_of(other):
                    alias.name, alias.asname = other, alias.name
        return node


@cache
def _names_of(module: str) -> frozenset[str]:
    found = import_module(module)
    return frozenset(getattr(found, "__all__", None) or dir(found))


def _drop_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> None:
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        # `from __future__` is to be the first, and there is no empty body.
        node.body[:1] = [] if len(node.body) > 1 else [ast.copy_location(ast.Pass(), first)]


def _init_of(node: ast.ClassDef) -> list[ast.stmt]:
    """The ``__init__`` of a record, which :mod:`records` would have to write and compile when the first one is made.

    None where that is not plain: of a class with bases, with defaults that are made by a call.
    """
    how = next((each for each in node.decorator_list if _name_of(each) == "dataclass"), None)
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)]
    methods = {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
    if how is None or "__init__" in methods or any(_name_of(base) != "Generic" for base in node.bases):
        return []
    frozen = isinstance(how, ast.Call) and any(
        each.arg == "frozen" and isinstance(each.value, ast.Constant) and each.value.value for each in how.keywords
    )
    words, lines = [], []
    for each in fields:
        name, word, value = ast.unparse(each.target), "", ast.unparse(each.target)
        if ast.unparse(each.annotation).startswith(("ClassVar", "'ClassVar")):
            continue
        if isinstance(each.value, ast.Call):
            told = {keyword.arg: keyword.value for keyword in each.value.keywords}
            if _name_of(each.value) != "field" or not isinstance(told.get("default_factory"), ast.Name):
                return []
            word, value = f"{name}=...", f"{ast.unparse(told['default_factory'])}() if {name} is ... else {name}"
        elif isinstance(each.value, ast.Constant | ast.Name | ast.Attribute | ast.UnaryOp):
            word = f"{name}={ast.unparse(each.value)}"
        elif each.value is not None:
            return []
        words.append(word or name)
        lines.append(f"_set(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
    if "__post_init__" in methods:
        lines.append("self.__post_init__()")
    head = [f"def __init__(self, {', '.join(words)}):", *(["_set = object.__setattr__"] if frozen else [])]
    made = ast.parse("\n ".join([*head, *lines, "pass"])).body
    for part in ast.walk(made[0]):
        ast.copy_location(part, node)
    return list(made)


def _name_of(node: ast.expr) -> str:
    """Of what is called, subscribed, or itself."""
    inside = node.func if isinstance(node, ast.Call) else node.value if isinstance(node, ast.Subscript) else node
    return inside.id if isinstance(inside, ast.Name) else ""
