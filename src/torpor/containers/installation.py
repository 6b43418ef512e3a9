"""torpor's ``criu`` command where container runtimes find it, and ``torpor`` itself beside it, on root's path.

All of them look ``criu`` up on PATH: Podman, its conmon and runtime on that of whoever calls Podman, dockerd and
containerd on that of services, which begins with ``/usr/local/sbin`` as root's does.  So one small script there is
enough; a distribution's criu in ``/usr/sbin`` stays where it is.  The script runs the interpreter apart from whatever
environment it is called in (``-I``), without ``site`` (``-S``), which it has no use for, and names the place of its
packages itself.  The interpreter is not that of a virtual environment: when the latter is gone the script says so.

Manual pages and completions go into ``share`` beside the directory (``/usr/local/share``), where there is one.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torpor import __version__
from torpor.base.errors import NotPermittedError, TorporError
from torpor.base.fds import only_files

DIRECTORY = Path("/usr/local/sbin")
_NAME = "criu"
#: The scripts, what they import and call.
_COMMANDS = {
    _NAME: ("torpor.cli.criu.main", "command"),
    "torpor": ("torpor.cli.torpor", "command"),
}
_MADE_OF_TABLES = "Made of torpor's tables"
_NO_TEXTS: Mapping[str, str] = {}
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
    told = _marked(directory / _NAME)
    if told is None:
        return None
    made = bool(told.get("made_directory"))
    is_current = all(_text(directory / name) == _script(name, made) for name in _COMMANDS)
    return Installation(directory / _NAME, str(told.get("version", "?")), made, is_current)


def install(directory: Path = DIRECTORY, texts: Mapping[str, str] = _NO_TEXTS) -> tuple[Installation, bool]:
    """Put the scripts into *directory*, and whether anything was changed for that.

    *texts*: manual pages and completions, by their places below ``share``.  TorporError where another's file is there
    already; NotPermittedError.
    """
    directory = directory.absolute()
    old = find(directory)
    for name in _COMMANDS:
        path = directory / name
        if _marked(path) is None and (path.exists() or path.is_symlink()):
            raise TorporError(
                f"{path} is there already and is not torpor's",
                hint="move it away, or name a directory that comes before it on PATH: --directory DIR",
            )
    if old is not None and old.is_current and not _lacks(directory, texts):
        return old, _compile()
    try:
        made = old.made_directory if old is not None else _make(directory)
        for name in _COMMANDS:
            _write(directory / name, _script(name, made))
        _share(directory, texts)
    except PermissionError as error:
        raise NotPermittedError(f"{error.filename or directory}: {error.strerror}", hint="run as root") from None
    _compile()
    return Installation(directory / _NAME, __version__, made, True), True


def remove(directory: Path = DIRECTORY, texts: Mapping[str, str] = _NO_TEXTS) -> Path | None:
    """Take the scripts away again, and their directory if that was made for them; the first's path, None without any.

    TorporError where another's file is in their place.
    """
    directory = directory.absolute()
    old = find(directory)
    path = directory / _NAME
    if old is None and (path.exists() or path.is_symlink()):
        raise TorporError(f"{path} is not torpor's", hint="nothing was changed")
    ours = [directory / name for name in _COMMANDS if _marked(directory / name) is not None]
    try:
        for each in ours:
            each.unlink()
        for each, _ in _shared(directory, texts):
            if _MADE_OF_TABLES in _text(each)[:_MAX_BYTES]:
                each.unlink()
    except PermissionError as error:
        raise NotPermittedError(f"{error.filename}: {error.strerror}", hint="run as root") from None
    if old is not None and old.made_directory:
        with suppress(OSError):  # somebody else uses it by now
            directory.rmdir()
    return ours[0] if ours else None


def _text(path: Path) -> str:
    try:
        if path.is_symlink():
            return ""
        with open(path, encoding="utf-8", errors="replace", opener=only_files) as stream:
            return stream.read()
    except OSError:
        return ""


def _shared(directory: Path, texts: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    """Where each of *texts* belongs; nowhere if there is no directory for such things."""
    share = directory.parent / "share"
    if share.is_dir():
        yield from ((share / place, text) for place, text in texts.items())


def _lacks(directory: Path, texts: Mapping[str, str]) -> bool:
    return any(_text(path) != text for path, text in _shared(directory, texts) if _is_ours_to_write(path))


def _share(directory: Path, texts: Mapping[str, str]) -> None:
    for path, text in _shared(directory, texts):
        if _is_ours_to_write(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, text, mode=0o644)


def _is_ours_to_write(path: Path) -> bool:
    """Another's page or completion stays."""
    return not os.path.lexists(path) or _MADE_OF_TABLES in _text(path)


def lacks_compiled_files() -> bool:
    """Whether modules would have to be compiled anew at each start, because nothing compiled is there."""
    return any(not compiled.exists() for compiled in _iter_compiled())


def _marked(path: Path) -> dict[str, object] | None:
    """What the line with our mark says, of a file that has one."""
    if path.is_symlink():
        return None
    try:
        with open(path, "rb", opener=only_files) as stream:
            text = stream.read(_MAX_BYTES).decode(errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(_MARK):
            with suppress(ValueError):
                told = json.loads(line.removeprefix(_MARK))
                return told if isinstance(told, dict) else None
    return None


def _script(name: str, made_directory: bool) -> str:
    interpreter = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    first = f"#!{interpreter} -IS"
    if " " in interpreter or len(first) > _MAX_SHEBANG:
        # A shell that takes the first lines for a command, and Python for a string, as pip's scripts do.
        first = f"#!/bin/sh\n'''exec' \"{interpreter}\" -IS \"$0\" \"$@\"\n' '''"
    told = json.dumps({"version": __version__, "made_directory": made_directory})
    module, function = _COMMANDS[name]
    places = [str(place) for place in _places()]
    return (
        f"{first}\n"
        f"# The {name} command of torpor, put here by `torpor setup`, which takes it away with --undo.\n"
        f"{_MARK}{told}\n"
        f"import sys\n"
        f"\n"
        f"sys.path[:0] = {json.dumps(places)}\n"
        f"try:\n"
        f"    from torpor.base.bundle import use\n"
        f"\n"
        f"    use()\n"
        f"    from {module} import {function}\n"
        f"except ImportError as error:\n"
        f"    if (error.name or '').partition('.')[0] not in ('torpor', 'google', 'xxhash'):\n"
        f"        raise\n"
        f"    text = 'torpor is not where it was any more ({places[0]}): install it and run torpor setup, or remove '\n"
        f"    sys.stderr.write('{name}: ' + text + __file__ + '\\n')\n"
        f"    sys.exit(1)\n"
        f"\n"
        f"{function}()\n"
    )


def _places() -> list[Path]:
    """The directories that torpor's package lies in, and those of what it needs."""
    import xxhash
    from google import protobuf

    import torpor

    found = [Path(torpor.__file__ or "").absolute().parents[1], Path(protobuf.__file__ or "").absolute().parents[2]]
    found.append(Path(xxhash.__file__ or "").absolute().parents[1])
    return list(dict.fromkeys(found))


def _make(directory: Path) -> bool:
    if directory.is_dir():
        return False
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    return True


def _write(path: Path, text: str, *, mode: int = 0o755) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(mode)
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
