"""Spares the import of what protobuf's C core asks for and does not need here.

``collections``: of ``collections.abc`` it takes two classes, to register its own, and they are ``_collections_abc``'s;
the package around that costs 3 ms.  And its support code for the well-known types (Timestamp, Struct ...), which no
image uses.

The C core imports ``google.protobuf.internal.well_known_types`` when it makes its first message class, and with it
datetime, calendar, locale and typing: 4 to 10 ms, more than all the rest of this layer.  It takes one dictionary from
there, WKTBASES, and keeps it.  So it is handed an empty one, which is filled as soon as anything in this process
imports the public API, the only way by which a class of a well-known type comes into being.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType

from torpor.base.late import load
from torpor.base.typed import Any

_CORE = "google._upb._message"
_WELL_KNOWN = "google.protobuf.internal.well_known_types"
_PUBLIC_API = ("google.protobuf.descriptor_pool", "google.protobuf.message_factory", "google.protobuf.reflection")


#: The type of modules; the module ``types``, which has it too, takes its time to import.
_Module: type[ModuleType] = type(sys)


def load_core() -> Any:
    """Import protobuf's C core, without the costly modules that it asks for; its module."""
    if "collections" in sys.modules:
        return load(_CORE)
    stand_in = _Module("collections")
    stand_in.__dict__["namedtuple"] = _tuple_type
    sys.modules["collections"], sys.modules["collections.abc"] = stand_in, load("_collections_abc")
    try:
        return load(_CORE)
    finally:
        # Whoever imports them from now on gets the real ones.
        del sys.modules["collections"], sys.modules["collections.abc"]


def _tuple_type(name: str, fields: Iterable[str]) -> type:
    """What the core makes of a ``namedtuple`` of its own, of unknown fields as users see them."""
    places = {field: property(load("_operator").itemgetter(at)) for at, field in enumerate(fields)}
    return type(name, (tuple,), {"__slots__": (), "__new__": lambda cls, *words: tuple.__new__(cls, words), **places})


class _FillOnPublicApi:
    """A finder that finds nothing: it fills *bases* when the public API is about to be imported, then goes."""

    def __init__(self, bases: dict[str, type]) -> None:
        self._bases = bases

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name in _PUBLIC_API and self in sys.meta_path:
            sys.meta_path.remove(self)
            self._bases.update(load(_WELL_KNOWN).WKTBASES)


def without_well_known_types(make: Callable[[], object]) -> object:
    """Call *make*, which makes the first message class, and spares it that import where this is safe."""
    if _WELL_KNOWN in sys.modules or any(name in sys.modules for name in _PUBLIC_API):
        return make()
    stand_in = _Module(_WELL_KNOWN)
    bases: dict[str, type] = {}
    stand_in.__dict__["WKTBASES"] = bases
    sys.modules[_WELL_KNOWN] = stand_in
    try:
        made = make()
    finally:
        del sys.modules[_WELL_KNOWN]
    sys.meta_path.insert(0, _FillOnPublicApi(bases))
    return made
