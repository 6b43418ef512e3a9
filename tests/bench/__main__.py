"""python -m bench [--peer CRIU] [-n ROUNDS] [LOAD...]: a table of medians, and ratios to the peer if there is one."""

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from bench.measure import LOADS, BenchError, Figures, Load, become_reaper, build, measure, warm

_COLUMNS = ("dump ms", "frozen ms", "restore ms", "images MB", "peak MB", "work %")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--peer", help="another criu to compare with")
    parser.add_argument("-n", "--rounds", type=int, default=5)
    parser.add_argument("--engine", help="our criu (default: the one installed beside this Python)")
    parser.add_argument("loads", nargs="*", help=f"of {', '.join(load.name for load in LOADS)}")
    args = parser.parse_args()
    engines = {"torpor": args.engine or str(Path(sys.executable).with_name("criu"))}
    if args.peer:
        engines["peer"] = args.peer
    wanted = [load for load in LOADS if not args.loads or load.name in args.loads]
    become_reaper()
    directory = Path(tempfile.mkdtemp(prefix="torpor-bench-", dir="/dev/shm"))
    try:
        program = build(directory)
        print(f"{'load':18}{'engine':8}" + "".join(f"{column:>12}" for column in _COLUMNS), flush=True)
        return max([_one_load(load, engines, program, directory, args.rounds) for load in wanted], default=0)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _one_load(load: Load, engines: dict[str, str], program: Path, directory: Path, rounds: int) -> int:
    found: dict[str, list[Figures]] = {name: [] for name in engines}
    failed = 0
    for _ in range(rounds):
        for name, engine in engines.items():
            if load.kind in ("memory", "dirtied"):
                warm(3 * load.count << 20)
            try:
                found[name].append(measure([engine], load, program, directory))
            except BenchError as error:
                print(f"{load.name:18}{name:8}{error}", flush=True)
                failed = 1
    medians = {name: _median(figures) for name, figures in found.items() if figures}
    for name, row in medians.items():
        print(f"{load.name:18}{name:8}" + "".join(f"{value:12.1f}" for value in row), flush=True)
    if len(medians) > 1:
        ratios = [ours / theirs if theirs else 0 for ours, theirs in zip(*medians.values(), strict=True)]
        print(f"{load.name:18}{'ratio':8}" + "".join(f"{value:11.2f}x" for value in ratios), flush=True)
    return failed


def _median(figures: list[Figures]) -> tuple[float, ...]:
    return (
        statistics.median(each.dump_s for each in figures) * 1e3,
        statistics.median(each.frozen_s for each in figures) * 1e3,
        statistics.median(each.restore_s for each in figures) * 1e3,
        statistics.median(each.image_bytes for each in figures) / 1e6,
        statistics.median(each.peak_bytes for each in figures) / 1e6,
        statistics.median(each.work for each in figures) * 1e2,
    )


if __name__ == "__main__":
    sys.exit(main())
