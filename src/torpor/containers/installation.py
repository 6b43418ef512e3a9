"""torpor's ``criu`` command where container runtimes find it.

All of them look ``criu`` up on PATH: Podman, its conmon and runtime on that of whoever calls Podman, dockerd and
containerd on that of services, which begins with ``/usr/local/sbin`` as root's does.  So one small script there is
enough; a distribution's criu in ``/usr/sbin`` stays where it is.  The script runs the interpreter apart from whatever
environment it is called in (``-I``), without ``site`` (``-S``), which it has no use for, and names the place of its
packages itself.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torpor import __version__
from torpor.base.errors import NotPermittedError, TorporError

DIRECTORY = Path("/usr/local/sbin")
_NAME = "criu"
_MARK = "# torpor setup: "
_MAX_BYTES = 1 << 16
#: The kernel reads so much of a first line that names an interpreter (BINPRM_BUF_SIZE, Linux 5.1).
_MAX_SHEBANG = 255


@dataclass(frozen=True, slots=True)
class Installation:
    """A script of ours: where, the version that put it there, and whether it made the directory for it."""

    path: Path
    version: str
    made_directory: bool
    is_current: bool


def find(directory: Path = DIRECTORY) -> Installation | None:
    """Our script in *directory*; None where there is none, or another's file."""
    path = directory / _NAME
    told = _marked(path)
    if told is None:
        return None
    made = bool(told.get("made_directory"))
    text = path.read_text(encoding="utf-8", errors="replace")
    return Installation(path, str(told.get("version", "?")), made, text == _script(made))


def install(directory: Path = DIRECTORY) -> tuple[Installation, bool]:
    """Put the script into *directory*, and whether anything was changed for that.

    TorporError where another's criu is there already; NotPermittedError.
    """
    directory = directory.absolute()
    old = find(directory)
    path = directory / _NAME
    if old is None and (path.exists() or path.is_symlink()):
        raise TorporError(
            f"{path} is there already and is not torpor's",
            hint="move it away, or name a directory that comes before it on PATH: --directory DIR",
        )
    if old is not None and old.is_current:
        return old, _compile()
    try:
        made = old.made_directory if old is not None else _make(directory)
        _write(path, _script(made))
    except PermissionError as error:
        raise NotPermittedError(f"{path}: {error.strerror}", hint="run as root") from None
    _compile()
    return Installation(path, __version__, made, True), True


def remove(directory: Path = DIRECTORY) -> Path | None:
    """Take the script away again, and its directory if that was made for it; its path, None if there was none.

    TorporError where another's file is in its place.
    """
    directory = directory.absolute()
    path = directory / _NAME
    old = find(directory)
    if old is None:
        if path.exists() or path.is_symlink():
            raise TorporError(f"{path} is not torpor's", hint="nothing was changed")
        return None
    try:
        path.unlink()
    except PermissionError as error:
        raise NotPermittedError(f"{path}: {error.strerror}", hint="run as root") from None
    if old.made_directory:
        with suppress(OSError):  # somebody else uses it by now
            directory.rmdir()
    return path


def lacks_compiled_files() -> bool:
    """Whether modules would have to be compiled anew at each start, because nothing compiled is there."""
    return any(not compiled.exists() for compiled in _iter_compiled())


def _marked(path: Path) -> dict[str, object] | None:
    """What the line with our mark says, of a file that has one."""
    if path.is_symlink():
        return None
    try:
        with path.open("rb") as stream:
            text = stream.read(_MAX_BYTES).decode(errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(_MARK):
            with suppress(ValueError):
                told = json.loads(line.removeprefix(_MARK))
                return told if isinstance(told, dict) else None
    return None


def _script(made_directory: bool) -> str:
    interpreter = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    first = f"#!{interpreter} -IS"
    if " " in interpreter or len(first) > _MAX_SHEBANG:
        # A shell that takes the first lines for a command, and Python for a string, as pip's scripts do.
        first = f"#!/bin/sh\n'''exec' \"{interpreter}\" -IS \"$0\" \"$@\"\n' '''"
    told = json.dumps({"version": __version__, "made_directory": made_directory})
    return (
        f"{first}\n"
        f"# The criu command of torpor, for container runtimes. `torpor setup --undo` takes it away.\n"
        f"{_MARK}{told}\n"
        f"import sys\n"
        f"\n"
        f"sys.path[:0] = {json.dumps([str(place) for place in _places()])}\n"
        f"from torpor.cli.criu.main import command\n"
        f"\n"
        f"command()\n"
    )


def _places() -> list[Path]:
    """The directories that torpor's package and protobuf's lie in."""
    from google import protobuf

    import torpor

    found = [Path(torpor.__file__ or "").absolute().parents[1], Path(protobuf.__file__ or "").absolute().parents[2]]
    return list(dict.fromkeys(found))


def _make(directory: Path) -> bool:
    if directory.is_dir():
        return False
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    return True


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o755)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _iter_compiled() -> Iterator[Path]:
    import importlib.util

    import torpor

    for source in Path(torpor.__file__ or "").parent.rglob("*.py"):
        yield Path(importlib.util.cache_from_source(str(source)))


def _compile() -> bool:
    """Compile what is not: an installation made under PYTHONDONTWRITEBYTECODE starts several times slower."""
    import compileall

    import torpor

    if not lacks_compiled_files():
        return False
    with suppress(OSError):
        compileall.compile_dir(str(Path(torpor.__file__ or "").parent), quiet=2)
        return True
    return False
