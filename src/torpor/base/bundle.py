"""The modules of a dump and a restore from one file instead of some 250: a sixth of what an idle dump takes.

The installation makes the file beside this module (``bundling``, called by ``hatch_build.py``), for the Python that it
installs for; without one, or under another Python, the sources' own files are imported as ever.  What is imported late
is unmarshalled late.

File: ``MAGIC_NUMBER`` of the Python, the length of the index in 4 bytes (little endian), the index, the groups.  A
group (marshal) is the codes of modules that are loaded together: what several of them say alike is made once.  The
index (marshal) is three things: name to whether it is a package, its group and its place therein; start and end of each
group, from the file's start; and name to those that are loaded before it, each behind those that it imports: one after
the other, without the import system, whose part in each is a third of the time.

The file is mapped: what is not needed is not read, and what is is not copied.
"""

from __future__ import annotations

import marshal
import mmap
import sys

#: The bootstrap of `importlib` itself: that package costs a millisecond.
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER

NAME = "modules.bundle"
TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any

#: The type of modules: `types` costs half a millisecond.
_Module: type[ModuleType] = type(sys)
#: What stands before the index: the magic number, and a length.
_N_HEAD = len(MAGIC_NUMBER) + 4


def use() -> None:
    """Have modules of ours come from the file, if there is one for this Python."""
    finder = open_bundle(__file__.rpartition("/")[0])
    if finder is not None:
        sys.meta_path.insert(0, finder)


def open_bundle(directory: str) -> Finder | None:
    """What finds modules in the file of that directory (of the package ``base``); None where there is none for us."""
    try:
        with open(f"{directory}/{NAME}", "rb", buffering=0) as stream:
            head = stream.read(_N_HEAD)
            if not head.startswith(MAGIC_NUMBER):
                return None
            data = memoryview(mmap.mmap(stream.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ))
    except OSError:
        return None
    root = directory.rpartition("/")[0].rpartition("/")[0]
    index, groups, orders = marshal.loads(data[_N_HEAD : _N_HEAD + int.from_bytes(head[-4:], "little")])
    return Finder(root, data, index, groups, orders)


class Finder:
    """Finds modules in the file, and loads them (importlib.abc.MetaPathFinder, Loader)."""

    def __init__(
        self,
        root: str,
        data: memoryview,
        index: dict[str, tuple[bool, int, int]],
        groups: list[tuple[int, int]],
        orders: dict[str, list[str]],
    ) -> None:
        self.index, self.orders = index, orders
        self._root, self._data, self._groups = root, data, groups
        self._codes: dict[int, list[CodeType]] = {}

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
        """Run the module's code in it."""
        exec(self.get_code(module.__name__), module.__dict__)

    def get_code(self, name: str) -> CodeType:
        """The code of a module that the file has.

        Its source is named as below a directory of ``sys.path``, which is where tracebacks look for what they show.
        """
        _, group, place = self.index[name]
        codes = self._codes.get(group)
        if codes is None:
            start, end = self._groups[group]
            codes = self._codes[group] = marshal.loads(self._data[start:end])
        return codes[place]
