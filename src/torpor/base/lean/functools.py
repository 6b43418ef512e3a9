"""What of :mod:`functools` is C code already: the module around it, with :mod:`collections`, costs 3 ms to import."""

from __future__ import annotations

from _functools import _lru_cache_wrapper, partial  # type: ignore[import-not-found]
from collections.abc import Callable

from torpor.base.typed import Any

__all__ = ["cache", "lru_cache", "partial"]


class _CacheInfo(tuple):  # type: ignore[type-arg]
    """Hits, misses, the greatest and the current size."""

    def __new__(cls, *numbers: int | None) -> _CacheInfo:
        return tuple.__new__(cls, numbers)


def lru_cache(maxsize: int | None = 128, typed: bool = False) -> Callable[[Any], Any]:
    """As ``functools.lru_cache`` when it is called."""

    def decorate(function: Any) -> Any:
        cached = _lru_cache_wrapper(function, maxsize, typed, _CacheInfo)
        cached.__name__, cached.__module__ = function.__name__, function.__module__
        return cached

    return decorate


cache = lru_cache(None)
