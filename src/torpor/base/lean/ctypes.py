"""What one call of the C library's takes of :mod:`ctypes`: the module around its C code costs 3 ms to import."""

from __future__ import annotations

from _ctypes import (
    FUNCFLAG_CDECL,
    FUNCFLAG_USE_ERRNO,
    CFuncPtr,
    _SimpleCData,
    addressof,
    dlopen,
    get_errno,
)

from torpor.base.typed import Any

__all__ = [
    "CDLL", "CFUNCTYPE", "addressof", "c_char", "c_int", "c_long", "c_uint32", "c_ulong", "c_void_p", "get_errno",
]  # fmt: skip


class c_int(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "i"


class c_long(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "l"


class c_ulong(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "L"


class c_uint32(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "I"


class c_void_p(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "P"


class c_char(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "c"


def CFUNCTYPE(result: Any, *arguments: Any) -> Any:
    """The type of pointers to functions of C."""

    class Function(CFuncPtr):
        _flags_ = FUNCFLAG_CDECL
        _restype_ = result
        _argtypes_ = arguments

    return Function


class CDLL:
    """A library, whose functions are its attributes, one object each, and items, a new one each time."""

    def __init__(self, name: str | None, use_errno: bool = False) -> None:
        class Function(CFuncPtr):
            _flags_ = FUNCFLAG_CDECL | (FUNCFLAG_USE_ERRNO if use_errno else 0)
            _restype_ = c_int

        self._function = Function
        self._handle: int = dlopen(name, 0)  # type: ignore[arg-type]  # None is the program itself

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = self.__dict__[name] = self[name]
        return found

    def __getitem__(self, name: str) -> Any:
        return self._function((name, self))  # type: ignore[arg-type]  # anything with a handle will do
