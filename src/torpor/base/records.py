"""``dataclass`` for the engine's path: the same words and rules as :mod:`dataclasses`, without its price.

The standard module costs 14 ms to import (inspect, ast, re) and compiles six methods a class; a whole dump of a small
process takes 40.  Here a class gets its ``__init__`` when the first instance is made, and shares all other methods.
Type checkers see the standard one.

What it can: ``frozen``, ``slots``, defaults, ``field(default=, default_factory=)``, ``__post_init__``, inheritance,
comparison for equality, ``replace`` and ``fields``.  Not: order, keyword-only fields, InitVar.
"""

from __future__ import annotations

__all__ = ["dataclass", "field", "fields", "ready", "replace"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass, field, fields, replace

    def ready(*classes: type) -> None:
        """Have the ``__init__`` of *classes* made now, by whoever has no time for it later."""
else:
    from _operator import attrgetter  # the module around it costs a millisecond

    _NOTHING = object()

    class _Field:
        """One field: its name, and what it is when nobody says."""

        __slots__ = ("default", "default_factory", "name")

        def __init__(self, default: object = _NOTHING, default_factory: object = _NOTHING) -> None:
            self.name, self.default, self.default_factory = "", default, default_factory

    def field(*, default: object = _NOTHING, default_factory: object = _NOTHING) -> _Field:
        """A field with a default, or with something that makes one for each instance."""
        return _Field(default, default_factory)

    def dataclass(cls: type | None = None, /, *, frozen: bool = False, slots: bool = False) -> object:
        """Make *cls* a record of its annotated names."""
        if cls is None:
            return lambda cls: _make(cls, frozen, slots)
        return _make(cls, frozen, slots)

    def fields(record: object) -> tuple[_Field, ...]:
        """The fields of a record or of its class."""
        return tuple(record.__record_fields__.values())

    def replace(record: object, /, **changes: object) -> object:
        """A copy of *record* with some fields changed."""
        values = {name: getattr(record, name) for name in record.__record_fields__}
        return type(record)(**(values | changes))

    def ready(*classes: type) -> None:
        """Have the ``__init__`` of *classes* made now, by whoever has no time for it later."""
        for cls in classes:
            if cls.__init__ is _first_init:
                cls.__init__ = _compile_init(cls)

    def _make(cls: type, frozen: bool, slots: bool) -> type:
        known: dict[str, _Field] = {}
        for base in reversed(cls.__mro__[1:]):
            known.update(base.__dict__.get("__record_fields__", ()))
        body = dict(cls.__dict__)
        own = [name for name, kind in body.get("__annotations__", {}).items() if not str(kind).startswith("ClassVar")]
        for name in own:
            given = body.pop(name, _NOTHING)
            known[name] = item = given if isinstance(given, _Field) else _Field(given)
            item.name = name
            if item.default is not _NOTHING and not slots:
                body[name] = item.default
        body["__record_fields__"] = known
        body["__match_args__"] = tuple(known)
        body["__record_values__"] = attrgetter(*known) if known else _no_values
        for name, method in _METHODS.items():
            body.setdefault(name, method)
        if frozen:
            body |= {"__setattr__": _refuse_set, "__delattr__": _refuse_delete, "__hash__": _hash}
        elif "__hash__" not in cls.__dict__ or cls.__dict__["__hash__"] is None:
            body["__hash__"] = None
        if slots:
            body["__slots__"] = tuple(own)
        body.pop("__dict__", None)
        body.pop("__weakref__", None)
        return type(cls)(cls.__name__, cls.__bases__, body)

    def _first_init(self: object, *words: object, **named: object) -> None:
        """Write the class's own ``__init__``, and be it from now on."""
        cls = next(base for base in type(self).__mro__ if "__record_fields__" in base.__dict__)
        cls.__init__ = _compile_init(cls)
        cls.__init__(self, *words, **named)

    def _compile_init(cls: type) -> object:
        space: dict[str, object] = {"_set": object.__setattr__, "_nothing": _NOTHING}
        frozen = cls.__setattr__ is _refuse_set
        words, lines = [], []
        for name, item in cls.__record_fields__.items():
            value = name
            if item.default is not _NOTHING:
                space[f"_default_{name}"] = item.default
                words.append(f"{name}=_default_{name}")
            elif item.default_factory is not _NOTHING:
                space[f"_make_{name}"] = item.default_factory
                words.append(f"{name}=_nothing")
                value = f"_make_{name}() if {name} is _nothing else {name}"
            else:
                words.append(name)
            lines.append(f" _set(self, {name!r}, {value})" if frozen else f" self.{name} = {value}")
        if hasattr(cls, "__post_init__"):
            lines.append(" self.__post_init__()")
        exec(f"def __init__(self, {', '.join(words)}):\n" + ("\n".join(lines) or " pass"), space)
        init = space["__init__"]
        init.__qualname__ = f"{cls.__qualname__}.__init__"
        return init

    def _no_values(self: object) -> tuple[()]:
        return ()

    def _repr(self: object) -> str:
        inside = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__record_fields__)
        return f"{type(self).__qualname__}({inside})"

    def _eq(self: object, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return self.__record_values__(self) == other.__record_values__(other)

    def _hash(self: object) -> int:
        return hash(self.__record_values__(self))

    def _refuse_set(self: object, name: str, value: object) -> None:
        raise AttributeError(f"cannot assign to field {name!r} of a frozen {type(self).__qualname__}")

    def _refuse_delete(self: object, name: str) -> None:
        raise AttributeError(f"cannot delete field {name!r} of a frozen {type(self).__qualname__}")

    _METHODS = {"__init__": _first_init, "__repr__": _repr, "__eq__": _eq}
