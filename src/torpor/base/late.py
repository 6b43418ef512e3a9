"""Modules that are imported when they are first needed: what a dump does not meet, it does not pay for."""

from __future__ import annotations

import sys

from torpor.base.typed import Any


def load(module: str) -> Any:
    """The module of that full name, imported if it is not yet (``importlib`` costs more than most of ours)."""
    found = sys.modules.get(module)
    # One that another thread is importing is not whole yet; import_ensure_initialized() in CPython asks the same.
    if found is None or getattr(found.__spec__, "_initializing", False):
        # Of a package this looks for each name that it exports: for one of each image, say, that takes its time.
        return __import__(module, fromlist=["*"])
    return found


def late(module: str, name: str) -> Late:
    """A stand-in for the function *name* of *module*, which is imported when it is called."""
    return Late(module, name)


class Late:
    """A function of a module that may not be imported yet."""

    __slots__ = ("_module", "_name")

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def load(self) -> Any:
        """The function itself: for whoever has time now and none later."""
        return getattr(load(self._module), self._name)

    def __call__(self, *words: object) -> Any:
        return self.load()(*words)
