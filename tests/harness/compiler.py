"""Compiling the C programs in tests/workloads, on demand and once: the results are kept by content."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from harness.skips import missing

SOURCES = Path(__file__).parent.parent / "workloads"
CFLAGS = ("-O2", "-g", "-Wall", "-Wextra", "-pthread")


class CompileError(Exception):
    """A workload does not compile, or only with warnings, which count as errors here."""


@cache
def _compiler() -> tuple[str, str]:
    """The compiler's path and its version text, which is part of what a cached program depends on."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        path = shutil.which(name) if name else None
        if path:
            return path, subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    missing("a C compiler (Debian: gcc libc6-dev)")


@cache
def programs() -> Path:
    """Where the results are kept."""
    path = Path(tempfile.gettempdir()) / f"torpor-workloads-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.is_symlink() or path.stat().st_uid != os.getuid():
        raise CompileError(f"{path} belongs to somebody else; remove it or set TMPDIR")
    return path


@cache
def compiled(name: str) -> Path:
    """The program made from tests/workloads/NAME.c. Extra flags stand in a line `// cflags: ...` of the source."""
    if (made := Path(os.environ.get("TORPOR_WORKLOADS", "/nowhere")) / name).exists():
        return made
    source = SOURCES / f"{name}.c"
    text = source.read_text()
    compiler, version = _compiler()

    digest = hashlib.sha256()
    for part in (version, *CFLAGS, *_extra_flags(text), text, *(path.read_text() for path in _shared_sources())):
        digest.update(part.encode() + b"\0")
    directory = programs() / digest.hexdigest()[:16]
    program = directory / source.stem
    if program.exists():
        return program

    directory.mkdir(exist_ok=True)
    unfinished = directory / f"{source.stem}.{os.getpid()}"
    make(name, compiler, unfinished)
    # Whoever is faster stays: a program that runs from a file in whose place another was put has none any more.
    with suppress(FileExistsError):
        os.link(unfinished, program)
    unfinished.unlink()
    return program


def make(name: str, compiler: str, target: Path) -> None:
    """Have *compiler*, which may be another machine's, make *target* of tests/workloads/NAME.c.  CompileError."""
    source = SOURCES / f"{name}.c"
    words = [f"-I{SOURCES}", "-o", str(target), str(source), str(SOURCES / "workload.c")]
    command = [compiler, *CFLAGS, *words, *_extra_flags(source.read_text())]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0 or result.stderr:
        target.unlink(missing_ok=True)
        raise CompileError(f"{' '.join(command)}\n{result.stderr}")


def _extra_flags(text: str) -> list[str]:
    return [flag for line in re.findall(r"^// cflags:(.*)$", text, re.MULTILINE) for flag in line.split()]


def _shared_sources() -> list[Path]:
    return [*sorted(SOURCES.glob("**/*.h")), SOURCES / "workload.c"]
