"""What a person sees while waiting: a line on a terminal that says how much is done, and times and sizes in words."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

_STEPS_PER_S = 10
_BAR = 24


def size(n_bytes: float) -> str:
    """``12.3 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024 or unit == "GiB":
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    raise AssertionError


def time_of(seconds: float) -> str:
    """``12 ms``, ``1.25 s``."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


class Progress:
    """A moving line on standard error while a ``with`` lasts, if that is a terminal; ``seconds`` says how long it was.

    *growing*: a directory whose size is shown (a checkpoint being written).
    """

    def __init__(self, title: str, growing: Path | None = None) -> None:
        self.seconds = 0.0
        self._title, self._growing = title, growing
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._start = 0.0

    def __enter__(self) -> Progress:
        self._start = time.monotonic()
        if sys.stderr.isatty():
            self._thread = threading.Thread(target=self._show, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._start
        if self._thread is not None:
            self._over.set()
            self._thread.join()
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _show(self) -> None:
        step = 0
        while not self._over.wait(1 / _STEPS_PER_S):
            at = step % (2 * _BAR)
            at = at if at < _BAR else 2 * _BAR - 1 - at
            bar = "".join("#" if abs(cell - at) < 3 else "." for cell in range(_BAR))
            elapsed = time.monotonic() - self._start
            sys.stderr.write(f"\r{self._title} [{bar}] {elapsed:.1f} s{self._written()}\x1b[K")
            sys.stderr.flush()
            step += 1

    def _written(self) -> str:
        if self._growing is None:
            return ""
        try:
            return f", {size(sum(entry.stat().st_blocks * 512 for entry in os.scandir(self._growing)))}"
        except OSError:
            return ""
