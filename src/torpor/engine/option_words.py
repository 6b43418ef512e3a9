"""What the values of options mean: from the words of a command line, and from there to what a policy holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.engine.options import JoinNs


def pid(text: str) -> int:
    """A number that is at least 1."""
    return number(text, low=1)


def number(text: str, low: int = 0) -> int:
    """A number that is not below *low*."""
    value = int(text)
    if value < low:
        raise ValueError("too small")
    return value


def port(text: str) -> int:
    """A port of TCP; 0 is any that is free.  ValueError."""
    value = number(text)
    if value > 0xFFFF:
        raise ValueError("too large")
    return value


def mode(text: str) -> int:
    """The permissions that *text* gives in octal (``0660``).  ValueError."""
    value = int(text, 8)
    if not 0 <= value <= 0o777:
        raise ValueError("must look like 0660")
    return value


def size(text: str) -> int:
    """The number of bytes that *text* gives (``10``, ``8M``, ``1G``; units are powers of 1024).  ValueError."""
    shift = {"K": 10, "M": 20, "G": 30}.get(text[-1:].upper(), 0)
    return number(text[:-1] if shift else text) << shift


def verbosity(text: str) -> int:
    """A level; one that is no number is 0, as for CRIU.

    Its own test suite says ``-verbosity=0``, which getopt takes for the level "erbosity=0".
    """
    return int(text) if text.isascii() and text.isdigit() else 0


def one_of(*allowed: str) -> Callable[[str], str]:
    """One of these words."""

    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return text

    return parse


def inherited(text: str) -> tuple[int, str]:
    """``fd[NUM]:KEY`` as the descriptor's number and the key.  ValueError."""
    fd, colon, key = text.removeprefix("fd[").partition("]:")
    if not text.startswith("fd[") or not colon or not key:
        raise ValueError("must look like fd[NUM]:KEY")
    return number(fd), key


def join_ns(text: str) -> tuple[str, str, str]:
    """``KIND:PID`` or ``KIND:PATH``, and what may follow a comma (a user namespace's uid and gid)."""
    kind, colon, rest = text.partition(":")
    path, _, extra = rest.partition(",")
    if not colon or not path:
        raise ValueError("must look like KIND:PATH")
    return kind, path, extra


def relabel(text: str) -> tuple[str, str]:
    """``OLD=NEW`` as the two, neither of them empty.  ValueError."""
    old, equals, new = text.partition("=")
    if not equals or not old or not new:
        raise ValueError("must look like OLD=NEW")
    return old, new


def veth(text: str) -> str:
    """``IN=OUT`` (names of a pair's ends) as --external has it: ``veth[IN]:OUT``.  ValueError."""
    inside, equals, outside = text.partition("=")
    if not equals:
        raise ValueError("must look like IN=OUT")
    return f"veth[{inside}]:{outside}"


def mount(text: str) -> str:
    """``KEY:VALUE`` or ``auto`` as --external has it: ``mnt[KEY]:VALUE``, ``mnt[]``.  ValueError."""
    if text == "auto":
        return "mnt[]"
    key, colon, value = text.partition(":")
    if not colon:
        raise ValueError("must look like KEY:VALUE")
    return f"mnt[{key}]:{value}"


def cgroup_mode(text: str) -> str:
    """A mode; nothing said is ``soft``."""
    return one_of("none", "props", "soft", "full", "strict", "ignore")(text or "soft")


def cgroup_root(text: str) -> tuple[str | None, str]:
    """``[CONTROLLER:]/PATH``; an empty name is that of v2."""
    name, colon, path = text.rpartition(":")
    if not path.startswith("/"):
        raise ValueError("must look like [CONTROLLER:]/PATH")
    return (name if colon else None), path


def cpu_caps(text: str) -> str:
    """A list of capabilities; nothing said is all."""
    for word in text.split(","):
        if word.removeprefix("^") not in ("", "all", "none", "cpu", "fpu", "ins"):
            raise ValueError(f"{word!r} is no CPU capability")
    return text or "all"


# -- from there to what a policy holds --------------------------------------------------------------------------


def or_none(value: str) -> str | None:
    """Nothing said is None."""
    return value or None


def or_root(path: str) -> str:
    """Nothing said is /."""
    return path or "/"


def has_net(kinds: Iterable[str]) -> bool:
    """Of kinds of namespaces."""
    return "net" in kinds


def joined(texts: Iterable[str]) -> tuple[str, ...]:
    """Lists with commas, as one."""
    return tuple(name for text in texts for name in text.split(","))


def joins(words: Iterable[tuple[str, str, str]]) -> tuple[JoinNs, ...]:
    """What ``join_ns`` has parsed (kind, path, what follows), as records."""
    from torpor.engine.options import JoinNs

    return tuple(JoinNs(*each) for each in words)


def yes(wanted: bool) -> Callable[[str, int, int], bool] | None:
    """Nobody is asked: the answer has been given."""
    return (lambda *_: True) if wanted else None
