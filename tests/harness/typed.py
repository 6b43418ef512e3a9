"""A person at a terminal: an interactive bash with job control, into which lines are typed as documents show them."""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pexpect

from harness import processes
from harness.events import time_limit_s

_PROMPT = "typed-prompt> "
_COLUMNS = 400
#: The parent of the shell: what is orphaned below it is waited for, as an init does, so that no pid stays taken.
_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(36, 1)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
shell = os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
while True:
    pid, status = os.waitpid(-1, 0)
    if pid == shell:
        os._exit(0)
"""


class TypedError(Exception):
    """A line that was typed failed; the text is what the terminal showed."""


@dataclass(frozen=True)
class Block:
    """Lines of a document that are typed one after the other, and where they stand."""

    document: str
    number: int
    lines: tuple[str, ...]


def blocks_of(path: Path) -> Iterator[Block]:
    """The indented blocks of a text in Markdown."""
    lines: list[str] = []
    start = 0
    for number, line in enumerate([*path.read_text(encoding="utf-8").splitlines(), ""], 1):
        if line.startswith("    "):
            start = start or number
            lines.append(line[4:])
        elif not line and lines and not lines[-1]:
            continue
        elif lines:
            if line:
                yield Block(path.name, start, tuple(lines))
                lines, start = [], 0
            else:
                lines.append("")
    if any(lines):
        yield Block(path.name, start, tuple(lines))


class Terminal:
    """A context manager; what was started by what is typed is gone afterwards."""

    def __init__(self, directory: Path, environment: Mapping[str, str], *, before: Sequence[str] = ()) -> None:
        """*before*: the words of a command that runs the shell somewhere else (nsenter)."""
        self._mark = processes.new_mark()
        told = {**environment, processes.MARK_VARIABLE: self._mark, "TERM": "xterm", "PS1": _PROMPT, "HISTFILE": ""}
        shell = [*before, "bash", "--norc", "--noprofile", "-i"]
        self._bash = pexpect.spawn(
            sys.executable, ["-c", _PARENT, *shell], cwd=str(directory), env=told, encoding="utf-8", echo=False,
            timeout=int(time_limit_s(60)), dimensions=(40, _COLUMNS),
        )  # fmt: skip
        self._bash.expect_exact(_PROMPT)
        self.enter("bind 'set enable-bracketed-paste off'")

    def enter(self, line: str, prompt: str = _PROMPT) -> str:
        """Type a line; what was printed until the prompt is there again."""
        self._bash.sendline(line)
        self._bash.expect_exact(prompt)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._bash.before or "")

    def succeed(self, line: str) -> str:
        """The same; TypedError unless it ends with 0."""
        said = self.enter(line)
        code = self.enter("echo code=$?")
        if "code=0" not in code:
            raise TypedError(f"{line}\n{said}\n{code}")
        return said

    def read(self, line: str) -> int:
        """A number that the shell knows, such as ``$!``."""
        found = re.search(r"number=(\d+)", self.enter(f"echo number={line}"))
        assert found is not None
        return int(found.group(1))

    def close(self) -> None:
        """End the shell and all that it has left."""
        processes.kill_tree(self._mark, None)
        with suppress(pexpect.ExceptionPexpect):  # its process has been waited for by now
            self._bash.close(force=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def commands_in(directory: Path) -> Path:
    """A directory with `torpor` and `criu` commands that run the work tree's."""
    for name, module in (("torpor", "torpor.cli.torpor"), ("criu", "torpor.cli.criu.main")):
        script = directory / name
        source = Path(__file__).parents[2] / "src"
        script.write_text(f"#!/bin/sh\nPYTHONPATH='{source}' exec '{sys.executable}' -m {module} \"$@\"\n")
        script.chmod(0o755)
    return directory


def environment(commands: Path, state: Path) -> dict[str, str]:
    """What a shell is started with that finds these commands."""
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "TMPDIR", "TORPOR_SLOW")}
    path = f"{commands}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    source = str(Path(__file__).parents[2] / "src")
    return {**kept, "PATH": path, "PYTHONPATH": source, "TORPOR_STATE": str(state), "PYTHONDONTWRITEBYTECODE": "1"}
