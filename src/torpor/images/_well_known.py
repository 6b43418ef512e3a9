"""Defers protobuf's support code for its well-known types (Timestamp, Struct ...), which no image uses.

The C core imports ``google.protobuf.internal.well_known_types`` when it makes its first message class, and with it
datetime, calendar, locale and typing: 4 to 10 ms, more than all the rest of this layer. It takes one dictionary from
there, WKTBASES, and keeps it. So it is handed an empty one, which is filled as soon as anything in this process
imports the public API, the only way by which a class of a well-known type comes into being.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType

_WELL_KNOWN = "google.protobuf.internal.well_known_types"
_PUBLIC_API = ("google.protobuf.descriptor_pool", "google.protobuf.message_factory", "google.protobuf.reflection")


class _FillOnPublicApi:
    """A finder that finds nothing: it fills `bases` when the public API is about to be imported, then goes."""

    def __init__(self, bases: dict[str, type]) -> None:
        self._bases = bases

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name in _PUBLIC_API and self in sys.meta_path:
            sys.meta_path.remove(self)
            self._bases.update(import_module(_WELL_KNOWN).WKTBASES)


def without_well_known_types(make: Callable[[], object]) -> object:
    """Calls `make`, which makes the first message class, and spares it that import where this is safe."""
    if _WELL_KNOWN in sys.modules or any(name in sys.modules for name in _PUBLIC_API):
        return make()
    stand_in = ModuleType(_WELL_KNOWN)
    bases: dict[str, type] = {}
    stand_in.__dict__["WKTBASES"] = bases
    sys.modules[_WELL_KNOWN] = stand_in
    try:
        made = make()
    finally:
        del sys.modules[_WELL_KNOWN]
    sys.meta_path.insert(0, _FillOnPublicApi(bases))
    return made
