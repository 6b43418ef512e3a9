"""python -m bench.containers --peer CRIU [-n ROUNDS]: Podman checkpoints and restores the demo Tomcat, side by side.

Each engine has a machine of its own (`harness.machine`) with a Podman that finds it as ``criu``; the rounds alternate.
What is timed is the whole ``podman container checkpoint`` and ``restore``, as a user waits for them, and what the
engine itself says of how long the processes stood still.
"""

import argparse
import json
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from harness import engine, images
from harness.podman import Podman

_COLUMNS = ("checkpoint ms", "frozen ms", "runtime ms", "restore ms", "runtime ms")
_N_VISITS = 30
#: Without the second the peer dumps Tomcat's closed connections and cannot restore them.
_OPTIONS = ("--print-stats", "--tcp-established")


@dataclass(frozen=True)
class Figures:
    """Milliseconds: Podman's command, the processes stopped, the runtime and the engine alone."""

    checkpoint: float
    frozen: float
    runtime_checkpoint: float
    restore: float
    runtime_restore: float

    def values(self) -> tuple[float, ...]:
        """In the order of the columns."""
        return (self.checkpoint, self.frozen, self.runtime_checkpoint, self.restore, self.runtime_restore)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.containers", description=__doc__)
    parser.add_argument("--peer", help="another criu to compare with")
    parser.add_argument("-n", "--rounds", type=int, default=5)
    parser.add_argument("--engine", help="our criu (default: the one installed beside this Python)")
    args = parser.parse_args()
    engines = {"torpor": args.engine or str(Path(sys.executable).with_name("criu"))}
    if args.peer:
        engines["peer"] = args.peer
    stores = images.stores()
    found: dict[str, list[Figures]] = {name: [] for name in engines}
    with ExitStack() as stack:
        machines = {}
        for name, command in engines.items():
            with engine.using([command]):
                machines[name] = stack.enter_context(Podman(stores, name))
        for number in range(args.rounds + 1):
            for name, podman in machines.items():
                figures = _measure(podman)
                if number:  # the first one warms up
                    found[name].append(figures)
    _show({name: [statistics.median(c) for c in zip(*(f.values() for f in all_), strict=True)]
           for name, all_ in found.items()})  # fmt: skip
    return 0


def _measure(podman: Podman) -> Figures:
    podman.run("--name", "hello", images.TOMCAT)
    podman.wait_listening("hello")
    address = podman.address("hello")
    for _ in range(_N_VISITS):
        podman.get(address, "/helloworld/")
    start = time.perf_counter()
    stats = podman("container", "checkpoint", "hello", *_OPTIONS, "--export=/tmp/hello.tar.gz")
    checkpoint = time.perf_counter() - start
    podman("rm", "--force", "hello")
    start = time.perf_counter()
    restored = podman("container", "restore", *_OPTIONS, "--import=/tmp/hello.tar.gz")
    restore = time.perf_counter() - start
    count = podman.get(address, "/helloworld/")
    assert count == str(_N_VISITS), f"the restored Tomcat counts {count}"
    podman("rm", "--force", "--time=0", "hello")
    taken = json.loads(stats)["container_statistics"][0]
    again = json.loads(restored)["container_statistics"][0]
    frozen = taken["criu_statistics"]["freezing_time"] + taken["criu_statistics"]["frozen_time"]
    return Figures(
        checkpoint * 1e3, frozen / 1e3, taken["runtime_checkpoint_duration"] / 1e3, restore * 1e3,
        again["runtime_restore_duration"] / 1e3,
    )  # fmt: skip


def _show(medians: dict[str, list[float]]) -> None:
    print(f"{'tomcat':8}" + "".join(f"{column:>15}" for column in _COLUMNS))
    for name, row in medians.items():
        print(f"{name:8}" + "".join(f"{value:15.1f}" for value in row))
    if len(medians) > 1:
        ours, theirs = medians.values()
        print(f"{'ratio':8}" + "".join(f"{a / b if b else 0:14.2f}x" for a, b in zip(ours, theirs, strict=True)))


if __name__ == "__main__":
    sys.exit(main())
