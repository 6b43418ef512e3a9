"""The modules of a dump and a restore from one file instead of some 250: a sixth of what an idle dump takes.

The installation makes the file beside this module (``bundling``, called by ``hatch_build.py``), for the Python that it
installs for; without one, or under another Python, the sources' own files are imported as ever.  What is imported late
is unmarshalled late.

File: ``MAGIC_NUMBER`` of the Python, the lengths of the index and of what is read at once in 4 bytes each (little
endian), the index, the codes.  Those that every dump or restore imports come first and are read at once.  The index
(marshal) is two dicts: name to whether it is a package, start and end of its code, from the file's start; and name to
those that are loaded before it, each behind those that it imports: one after the other, without the import system,
whose part in each is a third of the time.
"""

from __future__ import annotations

import _imp
import marshal
import sys

#: The bootstrap of `importlib` itself: that package costs a millisecond.
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER

NAME = "modules.bundle"
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, ModuleType
    from typing import Any

#: The type of modules: `types` costs half a millisecond.
_Module: type[ModuleType] = type(sys)
#: Sets `co_filename` of a code object and of all within, as the import of a .pyc file does.
_set_place: Callable[[CodeType, str], None] = getattr(_imp, "_fix_co_filename")  # noqa: B009 - stubs do not have it
#: What stands before the index: the magic number, and two lengths.
_N_HEAD = len(MAGIC_NUMBER) + 8


def use() -> None:
    """Have modules of ours come from the file, if there is one for this Python."""
    finder = open_bundle(__file__.rpartition("/")[0])
    if finder is not None:
        sys.meta_path.insert(0, finder)


def open_bundle(directory: str) -> Finder | None:
    """What finds modules in the file of that directory (of the package ``base``); None where there is none for us."""
    path = f"{directory}/{NAME}"
    try:
        with open(path, "rb", buffering=0) as stream:
            head = stream.read(_N_HEAD)
            if not head.startswith(MAGIC_NUMBER):
                return None
            n_index, n_first = (int.from_bytes(head[at : at + 4], "little") for at in (_N_HEAD - 8, _N_HEAD - 4))
            rest = stream.read(n_index + n_first)
    except OSError:
        return None
    root = directory.rpartition("/")[0].rpartition("/")[0]
    index, orders = marshal.loads(rest[:n_index])
    return Finder(root, path, index, orders, rest)


class Finder:
    """Finds modules in the file, and loads them (importlib.abc.MetaPathFinder, Loader)."""

    def __init__(
        self, root: str, path: str, index: dict[str, tuple[bool, int, int]], orders: dict[str, list[str]], read: bytes
    ) -> None:
        self.index, self.orders = index, orders
        self._root, self._path = root, path
        #: The bytes behind the head, as far as they are read at once.
        self._read = memoryview(read)

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The spec of a module of ours that the file has."""
        if name not in self.index:
            return None
        for other in self.orders.pop(name, ()):
            if other != name and other not in sys.modules:
                self._load(other)
        return self._spec(name)

    def _spec(self, name: str) -> ModuleSpec:
        found = self.index[name]
        stem = f"{self._root}/{name.replace('.', '/')}"
        loader: Any = self  # by its methods; the base class is a module that costs a millisecond
        spec = ModuleSpec(name, loader, origin=f"{stem}/__init__.py" if found[0] else f"{stem}.py", is_package=found[0])
        spec.has_location = True
        if found[0]:
            spec.submodule_search_locations = [stem]
        return spec

    def _load(self, name: str) -> None:
        """What an import does, for a module whose package is there."""
        spec = self._spec(name)
        module = _Module(name)
        package, _, tail = name.rpartition(".")
        module.__spec__, module.__loader__, module.__file__ = spec, spec.loader, spec.origin
        module.__package__ = name if spec.submodule_search_locations else package
        if spec.submodule_search_locations:
            module.__path__ = spec.submodule_search_locations
        sys.modules[name] = module
        try:
            self.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        setattr(sys.modules[package], tail, module)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """None: Python makes the module object itself."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code in it, with the file names of its source set where the package lies."""
        spec = module.__spec__
        assert spec is not None and spec.origin is not None
        code = self.get_code(module.__name__)
        _set_place(code, spec.origin)
        exec(code, module.__dict__)

    def get_code(self, name: str) -> CodeType:
        """The code of a module that the file has."""
        _, start, end = self.index[name]
        data: memoryview | bytes = self._read[start - _N_HEAD : end - _N_HEAD]
        if len(data) < end - start:
            with open(self._path, "rb", buffering=0) as stream:
                stream.seek(start)
                data = stream.read(end - start)
        code: CodeType = marshal.loads(data)
        return code
