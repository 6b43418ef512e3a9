"""One measurement: a load is started, dumped while it goes on, ended, restored and ended again."""

import ctypes
import mmap
import os
import resource
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_BEAT = struct.Struct("=3q")
_WORK = struct.Struct("=3q")
_PR_SET_CHILD_SUBREAPER = 36
_LIMIT_S = 60.0


@dataclass(frozen=True)
class Load:
    """What `load.c` is told: a kind and how many of it."""

    name: str
    kind: str
    count: int


LOADS = (
    Load("idle", "idle", 0),
    Load("256 MB", "memory", 256),
    Load("1 GB", "memory", 1024),
    Load("1 GB dirtied", "dirtied", 1024),
    Load("4 GB", "memory", 4096),
    Load("100 processes", "processes", 100),
    Load("500 threads", "threads", 500),
    Load("5000 mappings", "mappings", 5000),
    Load("1000 descriptors", "descriptors", 1000),
    Load("1500 mixed", "mixed", 1500),
)


@dataclass(frozen=True)
class Figures:
    """Seconds, bytes."""

    dump_s: float
    frozen_s: float
    restore_s: float
    image_bytes: int
    peak_bytes: int
    #: Pages that a load writes in the second after its longest stop, of those that it writes otherwise; 0: none does.
    work: float = 0.0


class BenchError(Exception):
    """An engine failed; the text holds the end of its log."""


class Beat:
    """The shared page in which a load records the longest time that it was stopped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_bytes(bytes(4096))
        with path.open("r+b") as stream:
            self._page = mmap.mmap(stream.fileno(), 4096)

    def pid(self) -> int:
        return int(_BEAT.unpack_from(self._page)[0])

    def longest_s(self) -> float:
        return int(_BEAT.unpack_from(self._page)[1]) / 1e9

    def work_of_a_second(self) -> int:
        """Pages written in the second after the longest stop, once that has passed."""
        _wait(lambda: _WORK.unpack_from(self._page, 24)[2], "a second of work")
        _, then, later = _WORK.unpack_from(self._page, 24)
        return int(later - then)

    def reset(self) -> None:
        struct.pack_into("=q", self._page, 16, 1)
        _wait(lambda: not _BEAT.unpack_from(self._page)[2], "a heartbeat")

    def clear(self) -> None:
        self._page[:48] = bytes(48)


def become_reaper() -> None:
    """Restored processes whose engine has ended become our children, so that their end is seen."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def build(directory: Path) -> Path:
    """Compile the load."""
    program = directory / "load"
    source = Path(__file__).with_name("load.c")
    subprocess.run(["cc", "-O1", "-Wall", "-pthread", "-o", str(program), str(source)], check=True)
    return program


def warm(n_bytes: int) -> None:
    """Touch memory and free it: pages that the host must hand out first are ten times slower.

    In a child, since a program's peak memory is counted from that of the process that started it.
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    for _ in range(2):
        with mmap.mmap(-1, n_bytes) as memory:
            for at in range(0, n_bytes, 1 << 24):
                memory[at : at + (1 << 24)] = bytes(min(1 << 24, n_bytes - at))
    os._exit(0)


def measure(engine: Sequence[str], load: Load, program: Path, directory: Path) -> Figures:
    """One round; BenchError if the engine fails."""
    images = directory / "images"
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir()
    beat = Beat(directory / "beat")
    with running(program, load, beat) as pid:
        beat.reset()
        works = load.kind == "dirtied"
        usual = beat.work_of_a_second() if works else 0
        beat.reset()
        dump_s, dump_peak = _timed([*engine, "dump", "-t", str(pid), "--leave-running"], images, "dump.log")
        # The load must have had its turn again, or the gap is not in yet.
        seen = beat.longest_s()
        _wait(lambda: beat.longest_s() >= seen, "a heartbeat")
        time.sleep(0.01)  # one beat is 0.2 ms; a benchmark, not a test: nothing depends on it but the figure
        frozen_s = beat.longest_s()
        work = beat.work_of_a_second() / usual if works else 0.0
    size = sum(entry.stat().st_blocks * 512 for entry in os.scandir(images) if entry.name.endswith(".img"))
    beat.clear()
    try:
        restore_s, restore_peak = _timed([*engine, "restore", "-d"], images, "restore.log")
    finally:
        _end(pid)
    return Figures(dump_s, frozen_s, restore_s, size, max(dump_peak, restore_peak), work)


@contextmanager
def running(program: Path, load: Load, beat: Beat) -> Iterator[int]:
    """A load, from when it is ready; its pid.  All of it ends with the block."""
    process = subprocess.Popen(
        [program, load.kind, str(load.count), beat._path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait(beat.pid, f"{load.name} to be ready")
        yield process.pid
    finally:
        _end(process.pid)
        process.returncode = 0


def _end(group: int) -> None:
    """Kill a whole load and reap it."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
    while True:
        try:
            os.waitpid(-group, 0)
        except ChildProcessError:
            return


def _timed(command: list[str], images: Path, log: str) -> tuple[float, int]:
    """Seconds and peak memory of an engine's run."""
    line = [*command, "-D", str(images), "-o", log]
    start = time.perf_counter()
    process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        tail = (images / log).read_text(errors="replace").splitlines()[-3:] if (images / log).exists() else []
        raise BenchError(f"{' '.join(command)} ended with {process.returncode}: {' | '.join(tail)}")
    return seconds, _peak(usage)


def _peak(usage: resource.struct_rusage) -> int:
    return usage.ru_maxrss * 1024


def _wait(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + _LIMIT_S
    while not condition():
        if time.monotonic() > end:
            raise BenchError(f"waited in vain for {what}")
        time.sleep(0.001)
