#!/usr/bin/env python3
"""All tests, in parts that run side by side, one pytest process each; then, alone, those marked `alone`.

usage: shards.py [-j N] [FOLDER...]     FOLDERs of tests/ instead of all; N processes at a time, one a core otherwise

What a part prints is kept apart and shown when it has ended.  The last lines name what has failed and say how many have
passed; the exit status is the worst.
"""

from __future__ import annotations

import argparse
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NoReturn

#: Into how many parts a folder that takes long is dealt.  They begin in turn, so that no core ends up without work, and
#: what makes the container images begins early.
DEALT = {"objects": 6, "robustness": 3, "e2e": 2}
#: Beyond this the parts are in each other's way.
MOST = 4
#: A tree that starts in a mount namespace of its own takes along what somebody else has mounted at that moment.
APART = ("unshare", "--mount", "--propagation", "private")
#: Two share a machine's memory and its disk, even where each has a core.
SLOWER = "2"

NOTHING_COLLECTED = 5  # pytest.ExitCode
_COUNTED = re.compile(r"\b(\d+) (passed|failed|errors?|skipped|xfailed|xpassed|warnings?)\b")
_ENDED = re.compile(r"=* ?(?:\d+ \w+|no tests ran).* in [\d.]+s\b")


@dataclass
class Part:
    """Test files, or folders of them, that one process works through, and what has come of it."""

    name: str
    paths: list[str]
    marks: str = "not alone"
    status: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    took_s: float = 0.0

    def command(self) -> list[str]:
        """The words of its process."""
        line = [sys.executable, "-m", "pytest", "--color=no", "--continue-on-collection-errors"]
        return [*line, "-m", self.marks, *self.paths]

    def told(self, status: int, output: str, took_s: float) -> None:
        """What its process has printed, and how it ended."""
        self.took_s = took_s
        lines = output.splitlines()
        self.failures = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
        last = next((line for line in reversed(lines) if _ENDED.match(line)), None)
        if last is not None:
            self.counts = Counter({what.rstrip("s"): int(n) for n, what in _COUNTED.findall(last)})
        # As a shell says it of who was killed.
        self.status = status if status >= 0 else 128 - status
        if self.status not in (0, 1, NOTHING_COLLECTED) or (last is None and not status):
            self.failures.append(f"ERROR {self.name}: its process ended with {status}")
            self.status = self.status or 1

    def said(self) -> str:
        """One line."""
        return f"{self.name}: {_in_words(self.counts)} in {self.took_s:.0f} s"


def _in_words(counts: Counter[str]) -> str:
    order = ("failed", "error", "passed", "skipped", "xfailed", "xpassed", "warning")
    plural = {what: f"{what}s" for what in ("error", "warning") if counts[what] > 1}
    return ", ".join(f"{counts[what]} {plural.get(what, what)}" for what in order if counts[what]) or "nothing"


def parts_of(tests: Path, folders: Sequence[str] = ()) -> list[Part]:
    """Every test file below *tests* in exactly one part, a folder's together or dealt out; in the order to begin.

    A folder is named as such, for its conftest.py is not asked which files to leave out where these are named.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(tests.rglob("test_*.py")):
        found.setdefault(path.relative_to(tests).parts[0], []).append(str(path))
    chosen = {folder: paths for folder, paths in found.items() if not folders or folder in folders}
    dealt = [
        (at, Part(f"{folder}, {at + 1} of {n}", chosen[folder][at::n]))
        for folder, n in DEALT.items()
        if folder in chosen
        for at in range(n)
        if chosen[folder][at::n]
    ]
    dealt.sort(key=lambda each: each[0])
    whole = [Part(folder, [str(tests / folder)]) for folder in chosen if folder not in DEALT]
    return [part for _, part in dealt] + whole


def worst(parts: Iterable[Part]) -> int:
    """The exit status: a part in which there was nothing to do is none, unless there was nothing at all."""
    statuses = [part.status for part in parts]
    return max((status for status in statuses if status != NOTHING_COLLECTED), default=NOTHING_COLLECTED)


class Runs:
    """The processes that are at work."""

    def __init__(self, tests: Path, show: IO[str], prefix: Sequence[str]) -> None:
        self._root, self._show, self._prefix = tests.parent, show, prefix
        self._at_work: dict[int, tuple[Part, subprocess.Popen[bytes], IO[bytes], float]] = {}
        self._selector = selectors.DefaultSelector()

    def start(self, part: Part) -> None:
        """Start one; what it prints goes into a file."""
        output = tempfile.TemporaryFile()  # noqa: SIM115 - it is shown, and closed, when the process has ended
        process = subprocess.Popen(
            [*self._prefix, *part.command()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=self._root,
        )
        pidfd = os.pidfd_open(process.pid)
        self._selector.register(pidfd, selectors.EVENT_READ)
        self._at_work[pidfd] = part, process, output, time.monotonic()

    def wait(self) -> None:
        """Until one has ended; it is shown."""
        for key, _ in self._selector.select():
            self._end(key.fd)

    def _end(self, pidfd: int) -> None:
        part, process, output, began = self._at_work.pop(pidfd)
        status = process.wait()
        self._selector.unregister(pidfd)
        os.close(pidfd)
        with output:
            output.seek(0)
            text = output.read().decode(errors="replace")
        part.told(status, text, time.monotonic() - began)
        print(f"\n######## {part.said()}\n{text}", end="", file=self._show, flush=True)

    def __len__(self) -> int:
        return len(self._at_work)

    def close(self, *, by_keyboard: bool) -> None:
        """End those that are still at work as Ctrl-C does, unless it already has; they take down what they made."""
        for _, process, _, _ in self._at_work.values():
            if not by_keyboard:
                process.send_signal(signal.SIGINT)
        while self._at_work:
            self.wait()


def _may_be_apart() -> bool:
    """Whether we may have mount namespaces: as root, and not in a chroot whose root is no mount."""
    try:
        return subprocess.run([*APART, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def run(parts: Sequence[Part], n_at_once: int, tests: Path, show: IO[str]) -> None:
    """All of them, some at once, in this order; each knows afterwards what has come of it."""
    left = list(parts)
    runs = Runs(tests, show, APART if n_at_once > 1 and _may_be_apart() else ())
    by_keyboard = False
    try:
        while left or runs:
            while left and len(runs) < n_at_once:
                runs.start(left.pop(0))
            runs.wait()
    except KeyboardInterrupt:
        by_keyboard = True
        raise
    finally:
        runs.close(by_keyboard=by_keyboard)


def summary(parts: Sequence[Part], took_s: float) -> str:
    """What each part has come to, what has failed, and last of all how many have passed."""
    lines = ["", "######## in all", *(part.said() for part in parts if part.took_s)]
    # A file that cannot be read at all is met again by the part of those that are alone.
    lines += dict.fromkeys(line for part in parts for line in part.failures)
    total: Counter[str] = sum((part.counts for part in parts), Counter())
    return "\n".join([*lines, f"{_in_words(total)} in {took_s:.0f} s ({took_s / 60:.1f} minutes)"])


def _ended(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main(words: Sequence[str]) -> int:
    """Run them; the exit status."""
    tests = Path(__file__).resolve().parent.parent / "tests"
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-j", type=int, metavar="N", default=min(len(os.sched_getaffinity(0)), MOST))
    parser.add_argument("folders", nargs="*", metavar="FOLDER")
    asked = parser.parse_args(words)
    parts = parts_of(tests, asked.folders)
    if not parts:
        parser.error(f"no tests in {' '.join(asked.folders) or tests}")
    signal.signal(signal.SIGTERM, _ended)
    # A shell's background job ignores it, and so would those that are ended by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    n_at_once = max(asked.j, 1)
    if n_at_once > 1:
        os.environ.setdefault("TORPOR_SLOW", SLOWER)
    lone = Part("alone", [str(tests / folder) for folder in asked.folders] or [str(tests)], marks="alone")
    began = time.monotonic()
    print(f"{len(parts)} parts, {n_at_once} at a time, then what must be alone; a part is shown when it has ended",
          flush=True)  # fmt: skip
    try:
        run(parts, n_at_once, tests, sys.stdout)
        run([lone], 1, tests, sys.stdout)
    finally:
        print(summary([*parts, lone], time.monotonic() - began), flush=True)
    return worst([*parts, lone])


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
