"""python -m bench.ways [--peer CRIU] [--mb N] [-n ROUNDS] [WAY...]: what memory costs on its way to another process.

A process of N MB goes to a page server on the loopback (ours and the peer's, from ours and the peer's dump), and moves
by ``torpor migrate`` to a host that is a pid namespace of this one: in TLS over some connections, or on the link itself
(``--via ssh``, without ssh: what that costs is not ours).  Medians, for each GB, of the processor time of both ends,
which means something on a busy machine as well; and of the time that it took, which does not.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.measure import Beat, BenchError, Load, become_reaper, build, running, warm
from harness.hosts import host
from harness.peers import LOOPBACK, free_port

_COLUMNS = ("from user", "from sys", "to user", "to sys", "all", "seconds", "MB/s")
_LIMIT_S = 300.0
#: Whoever runs this notes the processor time of the process itself, without those that it has started.
_NOTING = """
import atexit, json, os, resource
def _note():
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open({path!r}, "w") as stream:
        json.dump([used.ru_utime, used.ru_stime], stream)
def _end(code, end=os._exit):
    _note()
    end(code)
atexit.register(_note)
os._exit = _end
"""
#: (user, system), in seconds.
Spent = tuple[float, float]


@dataclass(frozen=True)
class Figures:
    """Processor time of both ends, and the time that it took, in seconds; how many bytes went."""

    source: Spent
    destination: Spent
    seconds: float
    n_bytes: int

    def values(self) -> tuple[float, ...]:
        """In the order of the columns."""
        each = [value / self.n_bytes * 1e9 for value in (*self.source, *self.destination)]
        return (*each, sum(each), self.seconds, self.n_bytes / self.seconds / 1e6)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.ways", description=__doc__)
    parser.add_argument("--peer", default=os.environ.get("TORPOR_PEER"), help="another criu (default: $TORPOR_PEER)")
    parser.add_argument("--mb", type=int, default=2048, help="how large the process is (default: 2048)")
    parser.add_argument("-n", "--rounds", type=int, default=3)
    parser.add_argument("ways", nargs="*", help="a part of a row's name each: those rows only")
    args = parser.parse_args()
    become_reaper()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # what has been started is ended
    directory = Path(tempfile.mkdtemp(prefix="torpor-bench-", dir="/dev/shm"))
    try:
        ways = _ways(args.peer, Load("", "memory", args.mb), build(directory), directory)
        wanted = [name for name in ways if not args.ways or any(word in name for word in args.ways)]
        found: dict[str, list[Figures]] = {name: [] for name in wanted}
        for _ in range(args.rounds):
            for name in wanted:
                warm(3 * args.mb << 20)
                found[name].append(ways[name]())
        print(f"{'for each GB':24}" + "".join(f"{column:>11}" for column in _COLUMNS))
        for name, figures in found.items():
            row = [statistics.median(column) for column in zip(*(each.values() for each in figures), strict=True)]
            print(f"{name:24}" + "".join(f"{value:11.2f}" for value in row), flush=True)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


def _ways(peer: str | None, load: Load, program: Path, directory: Path) -> dict[str, Callable[[], Figures]]:
    """What is measured, by the names of the rows."""
    engines = {"torpor": [sys.executable, "-m", "torpor.cli.criu.main"], **({"peer": [peer]} if peer else {})}
    found: dict[str, Callable[[], Figures]] = {}
    for sender, dump in engines.items():
        for taker, server in engines.items():
            found[f"pages {sender} to {taker}"] = partial(_to_page_server, dump, server, load, program, directory)
    for name, words in {
        "migrate tls 1": ["--connections", "1"],
        "migrate tls 4": ["--connections", "4"],
        "migrate link": ["--via", "ssh"],
    }.items():
        found[name] = partial(_migrate, words, load, program, directory)
    return found


def _to_page_server(dump: Sequence[str], server: Sequence[str], load: Load, program: Path, directory: Path) -> Figures:
    images, pages = _empty(directory / "images"), _empty(directory / "pages")
    port = free_port()
    where = ["--address", LOOPBACK, "--port", str(port)]
    taker = _start([*server, "page-server", *where, "-D", str(pages), "-o", str(pages / "log")])
    try:
        _wait_listening(port)
        with running(program, load, Beat(directory / "beat")) as pid:
            line = [*dump, "dump", "-t", str(pid), "--leave-running", "--page-server", *where]
            began = time.perf_counter()
            source = _ended(_start([*line, "-D", str(images), "-o", str(images / "log")]), images / "log")
            destination = _ended(taker, pages / "log")
            seconds = time.perf_counter() - began
        n_bytes = sum(path.stat().st_size for path in pages.glob("pages-*.img"))
    finally:
        if taker.returncode is None:
            taker.kill()
            taker.wait()
    return Figures(source, destination, seconds, n_bytes)


def _migrate(words: Sequence[str], load: Load, program: Path, directory: Path) -> Figures:
    here, there = directory / "here.json", directory / "there.json"
    for path in (here, there):
        path.unlink(missing_ok=True)
    script = directory / "migrate.py"
    main = "import sys\nfrom torpor.cli.torpor import main\nsys.exit(main())\n"
    script.write_text(_NOTING.format(path=str(here)) + main)
    with (
        host(directory, "there", main=_NOTING.format(path=str(there))) as other,
        running(program, load, Beat(directory / "beat")) as pid,
    ):
        line = [sys.executable, str(script), "migrate", str(pid), "there", *other.words, "--json", "-y", *words]
        line += ["--post-copy", "never"]
        done = subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LIMIT_S, check=False,
            env={**os.environ, "TORPOR_STATE": str(directory / "here")},
        )  # fmt: skip
        if done.returncode:
            raise BenchError(f"torpor migrate ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        told = json.loads(done.stdout)
    source, destination = (tuple(json.loads(path.read_text())) for path in (here, there))
    first = told["rounds"][0]
    return Figures(source, destination, first["seconds"], first["n_bytes"])


def _empty(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


def _start(line: Sequence[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _ended(process: "subprocess.Popen[bytes]", log: Path) -> Spent:
    """What it has used, when it has come to its end; BenchError where that is none."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        tail = log.read_text(errors="replace").splitlines()[-3:] if log.exists() else []
        raise BenchError(f"{process.args!r} ended with {process.returncode}: {' | '.join(tail)}")
    return _spent(usage)


def _spent(usage: resource.struct_rusage) -> Spent:
    return usage.ru_utime, usage.ru_stime


def _wait_listening(port: int) -> None:
    """Without connecting, since the first who does is the one that is served."""
    end = time.monotonic() + _LIMIT_S
    wanted = f"0100007F:{port:04X} 00000000:0000 0A"
    while wanted not in Path("/proc/net/tcp").read_text():
        if time.monotonic() > end:
            raise BenchError("waited in vain for a page server")
        time.sleep(0.005)


if __name__ == "__main__":
    sys.exit(main())
