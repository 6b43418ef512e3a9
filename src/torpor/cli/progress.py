"""What a person sees while waiting: a line on a terminal that says how much is done, and times and sizes in words."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from torpor.base.ids import Pid
from torpor.images.stores.opening import Location
from torpor.kernel.procfs.stat import read_stat
from torpor.kernel.procfs.task import read_tree

_STEPS_PER_S = 10
_BAR = 24


def size(n_bytes: float) -> str:
    """A number of bytes for people, in the largest unit that fits: ``12.3 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < (1024 if unit == "B" else 1023.95) or unit == "GiB":  # 1023.95 would print as 1024.0
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    raise AssertionError


def time_of(seconds: float) -> str:
    """``12 ms``, ``1.25 s``."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


class Progress:
    """A moving line on standard error while a ``with`` lasts, if that is a terminal; ``seconds`` says how long it was.

    *total_bytes*: how much there is to write or read by us (*counter*: ``wchar`` or ``rchar`` of proc_pid_io(5)), and
    so how far it is, how fast, and how long it will take; 0: not known.  *stopped*: whether what is waited for is
    stopped just now, which is said.
    """

    def __init__(
        self,
        title: str,
        total_bytes: int = 0,
        counter: str = "wchar",
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.seconds = 0.0
        self._title, self._total, self._counter, self._stopped = title, total_bytes, counter, stopped
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._start, self._first = 0.0, 0

    def __enter__(self) -> Progress:
        self._start = time.monotonic()
        if sys.stderr.isatty():
            self._first = _count(self._counter)
            self._thread = threading.Thread(target=self._show, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._start
        if self._thread is not None:
            self._over.set()
            self._thread.join()
            # A terminal that has hung up makes no failure of what was waited for.
            with suppress(OSError):
                sys.stderr.write("\r\x1b[K")
                sys.stderr.flush()

    def _show(self) -> None:
        step = 0
        while not self._over.wait(1 / _STEPS_PER_S):
            done = max(0, _count(self._counter) - self._first)
            line = line_of(self._title, done, self._total, time.monotonic() - self._start, step)
            stopped = "; it is stopped meanwhile" if self._stopped() else ""
            sys.stderr.write(f"\r{line}{stopped}\x1b[K")
            sys.stderr.flush()
            step += 1


def line_of(title: str, done: int, total: int, elapsed_s: float, step: int = 0) -> str:
    """What the line says when *done* of *total* bytes (0: not known) have taken so long."""
    if not total:
        at = step % (2 * _BAR)
        at = at if at < _BAR else 2 * _BAR - 1 - at
        bar = "".join("#" if abs(cell - at) < 3 else "." for cell in range(_BAR))
        return f"{title} [{bar}] {elapsed_s:.1f} s"
    # More may be written than was in memory; it is not done before it is.
    part = min(done / total, 0.99)
    bar = ("#" * round(part * _BAR)).ljust(_BAR, ".")
    speed = done / elapsed_s if elapsed_s else 0.0
    # Before a hundredth is done, nobody can tell.
    left = f", {_rounded((total - done) / speed)} left" if total // 100 < done < total else ""
    return f"{title} [{bar}] {part:.0%} of {size(total)}, {speed / 1e6:.0f} MB/s{left}"


def _rounded(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{max(1, round(seconds))} s"


def _count(counter: str) -> int:
    try:
        with open("/proc/self/io", encoding="ascii") as stream:
            return next((int(line.split()[1]) for line in stream if line.startswith(f"{counter}:")), 0)
    except OSError:
        return 0  # not every kernel counts


def memory_of_tree(pid: int) -> int:
    """The bytes that *pid* and everything below it have in memory and nowhere else, as far as is known."""
    total = 0
    for each in read_tree(Pid(pid)):
        with suppress(OSError, ValueError), open(f"/proc/{each}/status", encoding="utf-8", errors="replace") as stream:
            total += sum(int(line.split()[1]) << 10 for line in stream if line.startswith(("RssAnon:", "RssShmem:")))
    return total


def is_stopped(pid: int) -> bool:
    """Whether *pid* is stopped for a checkpoint."""
    try:
        return read_stat(Pid(pid)).state == "t"
    except (FileNotFoundError, ProcessLookupError):
        return False


def size_of_pages(images: Location) -> int:
    """The bytes of memory in a directory of images, or in a store of them."""
    if not isinstance(images, str | os.PathLike):
        return sum(images.size_of(name) for name in images.names() if name.startswith("pages-"))
    with suppress(OSError):
        return sum(path.stat().st_blocks * 512 for path in Path(images).glob("pages-*.img*"))
    return 0
