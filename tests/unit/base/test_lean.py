"""What stands in for the standard library in a bundle does what that does."""

# mypy: disallow-untyped-decorators=False, warn-unreachable=False

import contextlib
import ctypes
import functools
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from torpor.base import bundling
from torpor.base.lean import contextlib as lean_contextlib
from torpor.base.lean import ctypes as lean_ctypes
from torpor.base.lean import functools as lean_functools

both_contextlibs = pytest.mark.parametrize("module", [contextlib, lean_contextlib], ids=["standard", "ours"])
both_functools = pytest.mark.parametrize("module", [functools, lean_functools], ids=["standard", "ours"])
both_ctypes = pytest.mark.parametrize("module", [ctypes, lean_ctypes], ids=["standard", "ours"])


@pytest.mark.parametrize("name", bundling.STAND_INS)
def test_it_has_no_name_that_the_module_has_not(name: str) -> None:
    other = importlib.import_module(bundling.STAND_INS[name])
    wanted = getattr(other, "__all__", ())
    assert set(wanted) <= set(dir(importlib.import_module(name)))


@both_contextlibs
def test_a_generator_is_entered_and_left(module: Any) -> None:
    seen: list[str] = []

    @module.contextmanager
    def place(name: str, *, end: str) -> Iterator[str]:
        seen.append("in")
        try:
            yield name
        finally:
            seen.append(end)

    with place("x", end="out") as found:
        assert (found, seen) == ("x", ["in"])
    assert seen == ["in", "out"] and place.__name__ == "place"
    with pytest.raises(KeyError) as told, place("x", end="failed"):
        raise KeyError("k")
    assert seen[-1] == "failed" and told.value.__context__ is None


@both_contextlibs
@pytest.mark.parametrize("error", [KeyError("k"), StopIteration(3), RuntimeError("r"), KeyboardInterrupt()])
def test_a_generator_may_take_or_change_an_error(module: Any, error: BaseException) -> None:
    @module.contextmanager
    def place(what: str) -> Iterator[None]:
        try:
            yield
        except BaseException as met:
            assert met is error
            if what == "change":
                raise OSError("other") from met
            if what == "pass":
                raise

    with place("take"):
        raise error
    with pytest.raises(type(error)) as same, place("pass"):
        raise error
    assert same.value is error
    with pytest.raises(OSError, match="other") as other, place("change"):
        raise error
    assert other.value.__cause__ is error


@both_contextlibs
def test_a_generator_that_yields_too_seldom_or_too_often(module: Any) -> None:
    @module.contextmanager
    def place(times: int) -> Iterator[None]:
        for _ in range(times):
            try:
                yield
            except KeyError:
                continue

    with pytest.raises(RuntimeError, match="didn't yield"), place(0):
        pass
    with pytest.raises(RuntimeError, match="didn't stop"), place(2):
        pass
    with pytest.raises(RuntimeError, match="didn't stop after throw"), place(2):
        raise KeyError


@both_contextlibs
def test_suppress_and_nullcontext(module: Any) -> None:
    with module.suppress(OSError, KeyError):
        raise FileNotFoundError
    with pytest.raises(ValueError, match="v"), module.suppress(OSError), module.nullcontext():
        raise ValueError("v")
    with module.nullcontext(7) as found:
        assert found == 7


class _End:
    def __init__(self, seen: list[str], name: str, how: str = "") -> None:
        self.seen, self.name, self.how = seen, name, how

    def __enter__(self) -> str:
        return self.name

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self.seen.append(f"{self.name} {type(error).__name__}")
        if self.how == "raise":
            raise OSError(self.name)
        return self.how == "take"


@both_contextlibs
def test_a_stack_ends_all_in_the_opposite_order(module: Any) -> None:
    seen: list[str] = []
    with module.ExitStack() as stack:
        assert stack.enter_context(_End(seen, "a")) == "a"
        stack.callback(seen.append, "call")
        stack.enter_context(_End(seen, "b"))
    assert seen == ["b NoneType", "call", "a NoneType"]
    with module.ExitStack() as stack:
        stack.enter_context(_End(seen, "c"))
        kept = stack.pop_all()
    assert len(seen) == 3
    kept.close()
    assert seen[-1] == "c NoneType"


@both_contextlibs
def test_a_stack_whose_ends_fail_or_take(module: Any) -> None:
    seen: list[str] = []
    with pytest.raises(OSError, match="first") as told, module.ExitStack() as stack:
        stack.enter_context(_End(seen, "first", "raise"))
        stack.enter_context(_End(seen, "second", "raise"))
        raise KeyError("k")
    assert seen == ["second KeyError", "first OSError"]
    chain = [told.value, told.value.__context__, told.value.__context__.__context__]  # type: ignore[union-attr]
    assert [str(each) for each in chain] == ["first", "second", "'k'"]
    seen.clear()
    with module.ExitStack() as stack:
        stack.enter_context(_End(seen, "a"))
        stack.enter_context(_End(seen, "b", "take"))
        stack.enter_context(_End(seen, "c", "raise"))
    assert seen == ["c NoneType", "b OSError", "a NoneType"]


@both_functools
def test_a_cache(module: Any) -> None:
    asked: list[int] = []

    @module.cache
    def double(number: int) -> int:
        asked.append(number)
        return 2 * number

    @module.lru_cache(maxsize=1)
    def triple(number: int) -> int:
        asked.append(number)
        return 3 * number

    assert [double(2), double(2), double(3), triple(1), triple(2), triple(1)] == [4, 4, 6, 3, 6, 3]
    assert asked == [2, 3, 1, 2, 1] and double.__name__ == "double"
    double.cache_clear()
    assert double(2) == 4 and asked[-1] == 2 and module.partial(double, 5)() == 10


@both_ctypes
def test_a_call_of_the_c_library(module: Any) -> None:
    libc = module.CDLL(None, use_errno=True)
    call = libc.syscall
    call.restype, call.argtypes = module.c_long, [module.c_long] + [module.c_ulong] * 2
    getpid, close = 39, 3
    if os.uname().machine == "aarch64":
        getpid, close = 172, 57
    assert call(getpid, 0, 0) == os.getpid() and libc.syscall is call and libc["syscall"] is not call
    assert call(close, 999999, 0) == -1 and module.get_errno() == 9
    data = bytearray(b"four")
    at = module.addressof((module.c_char * 0).from_buffer(data))
    copy = (module.c_uint32 * 1)()
    memmove = module.CFUNCTYPE(module.c_void_p, module.c_void_p, module.c_void_p, module.c_ulong)
    memmove(ctypes.cast(libc.memmove, ctypes.c_void_p).value)(module.addressof(copy), at, 4)
    assert bytes(copy) == b"four"


def test_what_a_bundle_has_of_a_module(tmp_path: Path) -> None:
    """What is run, and nothing else; the lines are those of the source."""
    path = tmp_path / "module.py"
    path.write_text(
        '"""Text."""\nfrom __future__ import annotations\nfrom collections.abc import Callable, Sequence\n'
        "from contextlib import suppress\nfrom types import CodeType\nimport functools\n"
        "from torpor.base.typed import TYPE_CHECKING\nif TYPE_CHECKING:\n    import nothing\n"
        "Made = Callable[[int], int]\nused = suppress\nkept: dict[str, CodeType] = {}\n"
        'def work(one: Sequence[int]) -> CodeType:\n    """Text."""\n    two: int = len(one)\n    return two\n'
        'class Record:\n    """Text."""\n    size: int\n    @functools.cache\n    def none(self) -> None:\n'
        '        """Text."""\n'
    )
    space: dict[str, Any] = {"__name__": "module"}
    code = bundling.compiled(path, "module.py")
    exec(code, space)
    assert "nothing" not in code.co_names and "Sequence" not in space and "CodeType" not in space
    assert space["suppress"] is lean_contextlib.suppress and space["functools"] is lean_functools
    assert space["Record"].__annotations__ == {"size": "int"} and not space["work"].__annotations__
    assert space["work"]([1, 2]) == 2 and space["kept"] == {} and space["work"].__code__.co_firstlineno == 13
    assert space.get("__doc__") is None and space["work"].__doc__ is None


def test_numbers_of_headers_are_where_they_are_used(tmp_path: Path) -> None:
    """What nothing but annotations and numbers needs is not loaded; what a module says that it has stays."""
    path = tmp_path / "module.py"
    path.write_text(
        "from __future__ import annotations\nfrom os import path as path, sep\n"
        "from torpor.base.records import dataclass\nfrom torpor.kernel.signal import *\n"
        "from torpor.kernel.uapi import magic, socket as uapi\n"
        "from torpor.kernel.uapi.fcntl import F_GETSIG, F_SETSIG\n"
        "from torpor.tracee.tree import Tree\nimport torpor.kernel.kcmp\n"
        "def work() -> int:\n    return F_GETSIG, uapi.SO_MARK, magic.PROC_SUPER_MAGIC\n"
        "@dataclass\nclass Record:\n    tree: Tree\n    signal: int = F_SETSIG\n"
    )
    code = bundling.compiled(path, "module.py")
    space: dict[str, Any] = {"__name__": "module"}
    exec(code, space)
    assert space["work"]() == (11, 36, 0x9FA0) and not space["work"].__code__.co_names
    assert space["Record"](0).signal == 10 and space["path"] is os.path and space["SIGKILL"] == 9
    assert not space.keys() & {"F_GETSIG", "F_SETSIG", "Tree", "magic", "sep", "torpor", "uapi"}
    other = tmp_path / "other.py"
    other.write_text(path.read_text() + "__all__ = ['Tree', 'work']\n")
    assert "Tree" in bundling.compiled(other, "other.py").co_names


def test_records_have_their_init_from_the_bundle(tmp_path: Path) -> None:
    """Where it is plain; it takes and makes what that of a record of the sources does."""
    path = tmp_path / "module.py"
    path.write_text(
        "from torpor.base.records import dataclass, field\nfrom torpor.base.typed import Generic\n"
        "@dataclass(frozen=True, slots=True)\nclass One(Generic[int]):\n"
        "    a: int\n    b: str = 'b'\n    c: list = field(default_factory=list)\n    d: 'ClassVar[int]' = 5\n"
        "@dataclass(slots=True)\nclass Two:\n    a: int = -1\n    twice: int = 0\n"
        "    def __post_init__(self):\n        self.twice = 2 * self.a\n"
        "@dataclass(slots=True)\nclass Three(Two):\n    e: tuple = tuple()\n"
    )
    made: dict[str, Any] = {"__name__": "module"}
    plain: dict[str, Any] = {"__name__": "module"}
    exec(bundling.compiled(path, "module.py"), made)
    exec(compile(path.read_bytes(), "module.py", "exec"), plain)
    assert made["One"].__init__.__code__.co_filename == "module.py"
    for space in (made, plain):
        one, other = space["One"](1), space["One"](2, "x", [3])
        assert (one.a, one.b, one.c, one.d, other.b, other.c) == (1, "b", [], 5, "x", [3])
        assert one == space["One"](1) and one.c is not space["One"](1).c
        assert (space["Two"](4).twice, space["Two"]().a, space["Three"](7).twice, space["Three"]().e) == (8, -1, 14, ())
        with pytest.raises(AttributeError):
            one.a = 2
        with pytest.raises(TypeError):
            space["One"]()


def test_the_engines_path_takes_none_of_what_is_stood_in_for(tmp_path: Path) -> None:
    root = Path(bundling.__file__).parents[2]
    made = tmp_path / "torpor" / "base"
    made.mkdir(parents=True)
    for name in ("__init__.py", "base/__init__.py", "base/bundle.py"):
        (tmp_path / "torpor" / name).write_bytes((root / "torpor" / name).read_bytes())
    (made / "modules.bundle").write_bytes(bundling.pack(root))
    program = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, *{[each for each in sys.path if each]!r}]\n"
        "from torpor.base.bundle import use\nuse()\nimport torpor.cli.criu.main, torpor.cli.criu.dump\n"
        "import torpor.cli.criu.restore\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "torpor.engine.restore.run" in loaded
    assert not loaded & {*bundling.STAND_INS, "importlib", "typing", "types", "enum", "warnings"}
