"""Cost that grows with the square: four times as many objects of a kind may cost four times as much, and no more.

Counted are calls of functions, bytes read and waits for a task to stop, the same on a busy machine.  Objects are
asked for and made in batches: but for those named no object costs a stop of its own.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import engine
from harness.flavours import Flavour, start
from harness.rounds import rounds

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]

N = rounds(50, 150)
#: Of the costs above those of a single object.  What a table costs that is made at some size is in it.
LARGEST_RATIO = 5.2
#: Arguments of a workload, with the number at %; the first ones are what CI has time for.
KINDS = {
    **{f"many {kind}": ("many", kind, "%") for kind in (
        "pipe", "pty", "memfd", "unix-stream", "mount", "ghost", "tcp-listener", "unix-dgram", "unix-named", "udp",
        "tcp-pair", "eventfd", "timerfd", "signalfd", "file", "dup", "same-file", "fifo", "epoll-target", "epoll",
        "watch", "lock", "flock", "timer", "signal", "shm", "sem", "msg", "memory", "mapped-file", "in-flight",
        "messages", "pidfd", "directory", "bind", "netlink",
    )},
    "threads": ("brood", "wide", "0", "%"),
    "processes side by side": ("brood", "wide", "%"),
    "processes in a chain": ("brood", "deep", "%"),
    "zombies": ("brood", "wide", "0", "0", "0", "%"),
}  # fmt: skip
#: Stops for one more object, of dump and restore, where it costs any.
STOPS = {
    "many unix-named": (0, 2), "many epoll": (0, 1), "many shm": (0, 2), "threads": (4, 2.1),
    "processes side by side": (8, 12.2), "processes in a chain": (8, 12.2), "zombies": (0, 5),
}  # fmt: skip
#: Calls of functions for one more object, of dump and restore, which are most of what it costs: an eighth and a bit
#: more than today.
CALLS = {
    "many same-file": (105, 107), "many file": (220, 157), "many eventfd": (185, 120), "many pipe": (274, 280),
    "many unix-stream": (700, 660), "many memory": (202, 268), "threads": (835, 815),
    "processes side by side": (5400, 5400),
}  # fmt: skip
#: Batches are of a size, and a dump may look at a process once more.
NO_STOPS = 0.1
IN_CI = 5
FEW = 16
#: What needs namespaces of its own, and options of dump and restore.
OWN = ("shm", "sem", "msg", "mount", "bind")
OPTIONS = {"tcp-pair": ["--tcp-established"], "lock": ["--file-locks"], "flock": ["--file-locks"]}


def _cost(words: tuple[str, ...], n: int, counts: Path) -> dict[str, int]:
    """What dump and restore of *n* objects count."""
    found = {}
    kind = words[1]
    flavour = Flavour.FRESH if kind in OWN else Flavour.HOST
    with start(flavour, words[0], [word.replace("%", str(n)) for word in words[1:]]) as workload:
        workload.wait_ready()
        with engine.using([sys.executable, "-m", "harness.counted", str(counts)]):
            for name, work in (("dump", workload.dump), ("restore", workload.restore)):
                work(options=OPTIONS.get(kind, ()))
                for what, value in json.loads(counts.read_text(encoding="ascii")).items():
                    found[f"{what} of the {name}"] = value
        workload.expect_pass()
    return found


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where they are written; the engine finds the harness."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", ":".join(path for path in sys.path if path))
        yield tmp_path_factory.mktemp("counts") / "counts"


@pytest.fixture(scope="module")
def least(counts: Path) -> dict[str, int]:
    """What a single object costs."""
    return _cost(KINDS["many eventfd"], 1, counts)


@pytest.mark.parametrize("kind", list(KINDS)[: rounds(IN_CI, len(KINDS))])
def test_no_square(kind: str, counts: Path, least: dict[str, int]) -> None:
    some, more = (_cost(KINDS[kind], n, counts) for n in (N, 4 * N))
    for what, base in least.items():
        # A page here or there is no growth.
        if what.startswith("stops"):
            each = (more[what] - some[what]) / (3 * N)
            assert each <= STOPS.get(kind, (0, 0))["restore" in what] + NO_STOPS, f"{what}: {each:.2f} for each"
            continue
        ratio = (more[what] - base) / max(some[what] - base, base // 20)
        assert ratio <= LARGEST_RATIO, f"{what}: {base}, {some[what]}, {more[what]}: {ratio:.1f} times as much"


@pytest.mark.parametrize("kind", CALLS)
def test_calls_for_one_more(kind: str, counts: Path) -> None:
    """Once in three times: what waits for others on a busy machine, or meets what is theirs, has more to do."""
    each: list[list[float]] = []
    for _ in range(3):
        some, more = (_cost(KINDS[kind], n, counts) for n in (FEW, 3 * FEW))
        each.append([(more[what] - some[what]) / (2 * FEW) for what in ("calls of the dump", "calls of the restore")])
        if all(found <= most for found, most in zip(each[-1], CALLS[kind], strict=True)):
            return
    pytest.fail(f"{kind}: {each}, at most {CALLS[kind]}")
