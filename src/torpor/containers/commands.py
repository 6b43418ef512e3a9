"""Running an engine's own command, and what to say when it fails.

Each can be replaced by a variable of the environment, ``TORPOR_PODMAN="podman --root DIR"``, for an engine that is not
on PATH or keeps its containers elsewhere.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from torpor.base.errors import EngineError
from torpor.base.fds import only_files

#: Where engines that are services look for other commands.
SERVICE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LOG_FILE = re.compile(r"(/[^\s\"']+\.log)\b")
_MAX_LOG_BYTES = 1 << 20
_N_LINES_SHOWN = 3


class TookTooLongError(EngineError):
    """It has been ended, as Ctrl-C would have, because its time was over."""


def command_of(engine: str) -> list[str]:
    """The words that *engine*'s command line begins with; none if it is not here."""
    other = os.environ.get(f"TORPOR_{engine.upper().replace('-', '_')}")
    words = shlex.split(other) if other else [engine]
    if not words:
        return []
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), SERVICE_PATH])
    found = shutil.which(words[0], path=path)
    return [found, *words[1:]] if found else []


def run(engine: str, *words: str | os.PathLike[str], timeout_s: float | None = None, to_its_end: bool = False) -> str:
    """What *engine*'s command prints; EngineError with what it said if it fails, is not here, or takes too long.

    *to_its_end*: if we are interrupted, it goes on until it is done, for it would leave what it is making to nobody.
    """
    begin = command_of(engine)
    if not begin:
        raise EngineError(f"there is no {engine} on this machine", hint="`torpor setup --status` says what there is")
    return run_line(engine, [*begin, *(os.fspath(word) for word in words)], timeout_s, to_its_end)


def run_line(engine: str, line: Sequence[str], timeout_s: float | None, to_its_end: bool) -> str:
    """As ``run``, of a command line whose every word is known.  TookTooLongError after *timeout_s*."""
    # Files, not pipes: what the command leaves running behind it keeps them open.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = _Process(line, out, err)
        try:
            code = process.wait(timeout_s)
        except OSError as error:
            raise EngineError(f"{engine} cannot be run: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            process.end()
            raise TookTooLongError(f"{engine} does not answer ({shlex.join(line[:4])} ...)") from None
        except BaseException:
            if to_its_end:
                process.finish()
            else:
                process.end()
            raise
        if code:
            raise failure(engine, _text(err) or _text(out), code)
        return _text(out)


class _Process:
    """A command in a session of its own, started from a thread: where we are interrupted it cannot get lost."""

    def __init__(self, line: Sequence[str], out: IO[bytes], err: IO[bytes]) -> None:
        self._line, self._out, self._err = line, out, err
        self._process: subprocess.Popen[bytes] | None = None
        self._error: OSError | None = None
        self._starter = threading.Thread(target=self._start)
        #: Not the thread's join: one that is interrupted takes the thread for ended (Python 3.11).
        self._started = threading.Event()

    def _start(self) -> None:
        try:
            self._process = subprocess.Popen(
                self._line, stdin=subprocess.DEVNULL, stdout=self._out, stderr=self._err, start_new_session=True
            )
        except OSError as error:
            self._error = error
        finally:
            self._started.set()

    def wait(self, timeout_s: float | None) -> int:
        """Start it, if it is not yet, and wait for its end; OSError if it cannot be started."""
        if self._starter.ident is None:
            self._starter.start()
        self._started.wait()
        if self._process is None:
            raise self._error or OSError("it was not started")
        return self._process.wait(timeout_s)

    def finish(self) -> None:
        """Wait for its end, if it was started at all."""
        if self._starter.ident is not None:
            self._started.wait()
        if self._process is not None:
            self._process.wait()

    def end(self) -> None:
        """As Ctrl-C on a terminal would: everything that it runs is told, and criu has the time to undo."""
        if self._starter.ident is not None:
            self._started.wait()
        if self._process is None:
            return
        for number, patience_s in ((signal.SIGINT, 20), (signal.SIGTERM, 5), (signal.SIGKILL, None)):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=patience_s)
                return


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def failure(engine: str, said: str, code: int) -> EngineError:
    """What an engine wrote when it failed, without its decoration, and the reason that the criu log gives."""
    lines = [plain for line in said.splitlines() if (plain := _undecorated(line))]
    telling = [line for line in lines if line.startswith("Error")] or lines
    text = "; ".join(dict.fromkeys(line.removeprefix("Error: ") for line in telling[-_N_LINES_SHOWN:]))
    # Podman quotes the runtime's whole command line.
    text = re.sub(r"`(?:[^\s`]*/)?([^\s`/]+) (?:--?\S+ )*([a-z]+)\b[^`]*`", r"\1 \2", text)
    error = EngineError(f"{engine}: {text or f'ended with code {code}'}")
    for path in dict.fromkeys(_LOG_FILE.findall(said)):
        if lines := _log_errors(Path(path)):
            error.add_note("; ".join(lines))
            error.add_note(f"the log is {path}")
    return error


def _undecorated(line: str) -> str:
    """The message of a line of a log in key=value form; nothing for warnings and the like."""
    line = line.strip()
    if found := re.match(r"time=\S+ level=(\w+) msg=(\"(?:[^\"\\]|\\.)*\"|\S+)", line):
        if found[1] not in ("error", "fatal", "panic"):
            return ""
        return found[2].strip('"').replace('\\"', '"').replace("\\n", " ")
    return line


def _log_errors(path: Path) -> list[str]:
    """The first error lines of a criu log, without time and place."""
    try:
        with open(path, "rb", opener=only_files) as stream:
            text = stream.read(_MAX_LOG_BYTES).decode(errors="replace")
    except OSError:
        return []
    found = re.findall(r"^\([\d.]+\)\s+(?:\d+: )?Error \([^)]*\): (.*)$", text, re.M)
    return [line.strip() for line in found[:_N_LINES_SHOWN]]
