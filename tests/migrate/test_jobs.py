"""``torpor migrate``: a job moves to another host, and there is one of it at each instant, whatever goes wrong."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness import relay
from harness.events import IN_MODIFY, FileWatch, time_limit_s
from harness.hosts import Host, host
from harness.skips import missing
from torpor.base.errors import MigrationError
from torpor.engine import jobs
from torpor.migrate import rounds, source
from torpor.migrate.way import destination

pytestmark = pytest.mark.root
TORPOR = [sys.executable, "-m", "torpor.cli.torpor"]
#: Counts, a line a step, and has some memory that it checks at each.
_COUNTER = """
import time
data = bytes(range(256)) * (16 << 12)
n = 0
while True:
    assert data == bytes(range(256)) * (16 << 12)
    print(n, flush=True)
    n += 1
    time.sleep(0.01)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "here"))
    job = jobs.start([sys.executable, "-S", "-c", _COUNTER], "counter")
    try:
        _wait_for_line(job.log, 3)
        yield tmp_path / "here"
    finally:
        _end("counter")


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Host]:
    with host(tmp_path, "there") as made:
        yield made


def _end(name: str) -> None:
    for job in jobs.list_jobs():
        if job.name == name and job.status == jobs.RUNNING:
            jobs.kill(job, signal.SIGKILL)


def _wait_for_line(log: Path, n_lines: int) -> list[int]:
    """The numbers in *log*, once there are so many."""
    with FileWatch(log, IN_MODIFY) as changes:
        while len(numbers := [int(line) for line in log.read_text().split("\n")[:-1] if line]) < n_lines:
            assert select.select((changes,), (), (), time_limit_s(30))[0], log.read_text()
            changes.drain()
    return numbers


def _migrate(there: Host, *words: str, returncode: int = 0) -> str:
    line = [*TORPOR, "migrate", "counter", "there", *there.words, "-y", *words]
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == returncode, done.stderr
    return done.stdout if returncode == 0 else done.stderr


def test_a_job_moves_and_is_gone_here(here: Path, there: Host) -> None:
    before = _wait_for_line(jobs.find("counter").log, 3)
    made = json.loads(_migrate(there, "--json"))
    assert made["name"] == "counter" and made["downtime_s"] < time_limit_s(10)
    assert jobs.list_jobs() == [] and there.jobs() == {"counter": "running"}
    log = there.state / "jobs/counter/log"
    after = _wait_for_line(log, 5)
    assert after == list(range(after[0], after[0] + len(after))) and after[0] >= before[-1]
    assert there.leftovers() == [] and os.listdir(here / "migrating") == []


@pytest.mark.parametrize(
    "words", [("--via", "ssh"), ("--compress", "zstd"), ("--compress", "lz4"), ("--connections", "5")]
)
def test_the_ways_that_its_data_may_go(words: tuple[str, ...], here: Path, there: Host) -> None:
    if "lz4" in words and find_spec("lz4") is None:
        missing("the package lz4 (pip install lz4, Debian: python3-lz4)")
    sent = json.loads(_migrate(there, "--json", *words))["sent_bytes"]
    assert (sent < 16 << 20) == ("--compress" in words)
    assert jobs.list_jobs() == [] and there.jobs() == {"counter": "running"} and there.leftovers() == []


def test_that_a_connection_may_be_in_the_way_is_said_before_anything_goes(
    there: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "here"))
    program = (
        "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1]); time.sleep(9999)"
    )
    try:
        (port,) = _wait_for_line(jobs.start([sys.executable, "-S", "-u", "-c", program], "server").log, 1)
        line = [*TORPOR, "migrate", "server", "there", *there.words, "--dry-run"]
        for word, is_said in ((), True), (("--tcp-close",), False), (("--tcp-established",), False):
            done = subprocess.run([*line, *word], capture_output=True, text=True, check=True)
            assert (f"may be in the way when it is stopped: a connection to port {port}" in done.stderr) == is_said
    finally:
        _end("server")


@pytest.mark.parametrize("lacks", ["here", "there"])
def test_who_has_no_lz4_says_so_before_anything_is_stopped(
    lacks: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without/lz4.py").write_text("raise ImportError\n")
    path = f"{tmp_path / 'without'}:{os.environ['PYTHONPATH']}"
    if lacks == "there" and find_spec("lz4") is None:
        missing("the package lz4 (pip install lz4, Debian: python3-lz4)")
    with host(tmp_path, "there", {"PYTHONPATH": path} if lacks == "there" else None) as there:
        if lacks == "here":
            monkeypatch.setenv("PYTHONPATH", path)
        said = _migrate(there, "--compress", "lz4", "--dry-run", returncode=1)
        assert "there is no lz4 here" in said and "Debian: python3-lz4" in said, said
        assert ("refuses" in said) == (lacks == "there")
        assert jobs.find("counter").status == jobs.RUNNING


def test_a_copy_of_the_last_images_stays(here: Path, there: Host, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    place.mkdir()
    (place / "file").touch()
    assert "something already" in _migrate(there, "--persist", str(place), returncode=2)
    (place / "file").unlink()
    made = json.loads(_migrate(there, "--json", "--persist", str(place)))
    assert made["kept"] == str(place / "images") and made["rounds"]
    assert jobs.list_jobs() == [] and there.jobs() == {"counter": "running"}
    assert os.listdir(here / "migrating") == []
    line = [*TORPOR, "restore", str(place / "images")]
    subprocess.run(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    _wait_for_line(jobs.find("counter").log, 3)


#: Writes into all of its memory again and again, each time another byte, and says so after each pass that was right.
_WRITER = """
data, n, passes = bytearray(8 << 20), 0, 0
while True:
    for at in range(0, len(data), 4096):
        assert data[at] == n, (at, n)
        data[at] = (n + 1) % 251
    n, passes = (n + 1) % 251, passes + 1
    print(passes, flush=True)
"""


@pytest.mark.parametrize("words", [(), ("--rounds", "0"), ("--rounds", "5", "--downtime", "0ms", "--via", "ssh")])
def test_memory_that_is_written_meanwhile_is_right(
    words: tuple[str, ...], tmp_path: Path, there: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "here"))
    job = jobs.start([sys.executable, "-S", "-c", _WRITER], "counter")
    try:
        _wait_for_line(job.log, 3)
        made = json.loads(_migrate(there, "--json", *words))
    finally:
        _end("counter")
    assert bool(made["rounds"]) == (not words or words[1] != "0")
    after = _wait_for_line(there.state / "jobs/counter/log", 5)
    assert after == list(range(after[0], after[0] + len(after)))


#: Has mappings come, go, grow, move, lose pages and change their protection, and checks each page of all of them.
_SHAPES = """
import ctypes, mmap, random
libc = ctypes.CDLL(None, use_errno=True)
chance, held, n = random.Random(1), [], 0
def address(area):
    return ctypes.addressof(ctypes.c_char.from_buffer(area))
while True:
    what = chance.randrange(6)
    if what == 0 and len(held) < 40 or not held:
        pages = chance.randrange(1, 300)
        held.append((mmap.mmap(-1, pages * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), [0] * pages))
    area, model = held[chance.randrange(len(held))]
    if what == 1 and len(held) > 20:
        area.close()
        held = [each for each in held if each[1] is not model]
    elif what == 2:
        pages = chance.randrange(1, 300)
        area.resize(pages * 4096)
        model[:] = (model + [0] * pages)[:pages]
    elif what == 3:
        first = chance.randrange(len(model))
        count = chance.randrange(1, len(model) - first + 1)
        area.madvise(mmap.MADV_DONTNEED, first * 4096, count * 4096)
        model[first : first + count] = [0] * count
    else:
        for page in chance.sample(range(len(model)), max(1, len(model) // 4)):
            model[page] = chance.randrange(256)
            area[page * 4096 + page % 4096] = model[page]
    if not n % 50:
        for area, model in held:
            protection = chance.choice((1, 3, 3, 7))
            assert libc.mprotect(ctypes.c_void_p(address(area)), ctypes.c_size_t(len(area)), protection) == 0
            assert [area[page * 4096 + page % 4096] for page in range(len(model))] == model, n
            assert libc.mprotect(ctypes.c_void_p(address(area)), ctypes.c_size_t(len(area)), 3) == 0
        print(n // 50, flush=True)
    n += 1
"""


def test_mappings_that_change_between_the_rounds_are_right(
    tmp_path: Path, there: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "here"))
    job = jobs.start([sys.executable, "-S", "-c", _SHAPES], "counter")
    try:
        _wait_for_line(job.log, 5)
        _migrate(there, "--rounds", "6", "--downtime", "0ms")
    finally:
        _end("counter")
    after = _wait_for_line(there.state / "jobs/counter/log", 40)
    assert after == list(range(after[0], after[0] + len(after)))


#: Has 16 MiB that it only reads.
_READER = """
import time
data, n = bytes(range(256)) * (16 << 12), 0
while True:
    assert data[n * 4097 % len(data)] == n * 4097 % 256
    print(n, flush=True)
    n += 1
    time.sleep(0.01)
"""


def test_what_a_round_has_brought_is_not_written_while_it_is_stopped(
    tmp_path: Path, there: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "here"))
    log = there.state / "restored"
    there.torpor.write_text(there.torpor.read_text().replace('"$@"', f'"$@" -v 2>{log}'))
    job = jobs.start([sys.executable, "-S", "-c", _READER], "counter")
    try:
        _wait_for_line(job.log, 3)
        _migrate(there)
    finally:
        _end("counter")
    _wait_for_line(there.state / "jobs/counter/log", 5)
    pages = [int(line.split()[-2]) for line in log.read_text().splitlines() if " Restored " in line]
    assert len(pages) == 1 and pages[0] < 1024


#: Tells what has been imported and made from the last round, when the job is about to be stopped, to the end of it.
_SPY = """
import os, sys
from torpor.base import records
from torpor.migrate import destination
before, made = set(), []
compiled, rebuild, wait = records._compile_init, destination._Arrival._rebuild, destination._Arrival._wait_for_go
def compile(cls):
    made.append(cls.__qualname__)
    return compiled(cls)
def begin(self, last):
    before.update(sys.modules)
    made.clear()
    return rebuild(self, last)
def end(self):
    with open(os.environ["TORPOR_STATE"] + "/late", "w") as stream:
        print(*sorted({*sys.modules} - before), *made, file=stream)
    wait(self)
records._compile_init = compile
destination._Arrival._rebuild, destination._Arrival._wait_for_go = begin, end
"""


def test_nothing_is_imported_for_it_while_it_is_stopped(here: Path, tmp_path: Path) -> None:
    """By the destination; of the source a phase of the dump sees to it."""
    with host(tmp_path, "there", main=_SPY) as there:
        _migrate(there)
        assert (there.state / "late").read_text().split() == []


#: Tells what a clock shows that the machine has, by the vdso, and waits by it.
_CLOCK = """
import time
while True:
    print(int(time.monotonic() * 1000), flush=True)
    time.sleep(0.01)
"""


def test_clocks_go_on_where_those_of_the_other_host_are_ahead(
    tmp_path: Path, there: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a time namespace that the root enters, since it has the address space of the stub that made it."""
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "here"))
    later = "unshare --time --monotonic 1000000 --boottime 1000000 --fork --kill-child"
    there.torpor.write_text(there.torpor.read_text().replace("exec ", f"exec {later} "))
    job = jobs.start([sys.executable, "-S", "-c", _CLOCK], "counter")
    try:
        before = _wait_for_line(job.log, 3)
        made = json.loads(_migrate(there, "--json"))
    finally:
        _end("counter")
    after = _wait_for_line(there.state / "jobs/counter/log", 20)
    assert made["rounds"] and after == sorted(after) and 0 <= after[0] - before[-1] < time_limit_s(60) * 1000


def test_who_writes_faster_than_it_goes_runs_on_if_wished(here: Path, there: Host) -> None:
    said = _migrate(there, "--timeout", "1ms", "--on-timeout", "cancel", "--bandwidth", "200", returncode=1)
    assert "runs on here" in said and "--on-timeout stop" in said
    _runs_on(here)
    assert there.jobs() == {} and there.leftovers() == []


@pytest.mark.parametrize(("mb_s", "n_rounds"), [("1", "0 rounds"), ("20", "rounds")])
def test_who_would_rather_give_up_runs_on_when_time_is_up(
    mb_s: str, n_rounds: str, tmp_path: Path, there: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the midst of a round, or after many that have not made it less."""
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "here"))
    job = jobs.start([sys.executable, "-S", "-c", _WRITER], "counter")
    try:
        _wait_for_line(job.log, 3)
        said = _migrate(there, "--timeout", "3s", "--on-timeout", "cancel", "--bandwidth", mb_s, returncode=1)
        assert "it runs on here" in said and n_rounds in said
        _wait_for_line(job.log, len(_wait_for_line(job.log, 3)) + 3)
    finally:
        _end("counter")
    assert there.jobs() == {} and there.leftovers() == []


def test_a_destination_that_says_nothing_any_more_is_not_waited_for(
    here: Path, there: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped here all the while."""
    rsh = tmp_path / "silent"
    rsh.write_text(f'#!/bin/sh\nexec {sys.executable} {relay.__file__} end -0.001 silence {there.rsh} "$@"\n')
    rsh.chmod(0o755)
    monkeypatch.setattr(source, "READY_WITHIN_S", 0.5)
    job = jobs.find("counter")
    wishes = source.Wishes(rsh=str(rsh), remote=str(there.torpor), via_ssh=True, aim=rounds.Aim(most=0))
    with pytest.raises(MigrationError, match="said nothing"):
        source.migrate(job.pid, job, destination("there"), wishes)
    _runs_on(here)
    assert there.jobs() == {}


def test_it_goes_by_another_name_there_and_stays_here_as_images_if_wished(here: Path, there: Host) -> None:
    _migrate(there, "--name", "other", "--keep-source")
    assert there.jobs() == {"other": "running"}
    assert jobs.find("counter").status == jobs.CHECKPOINTED
    there.run("kill", "--signal", "KILL", "other")
    jobs_here = subprocess.run([*TORPOR, "restore", "counter"], check=True, capture_output=True, text=True).stdout
    assert "counter" in jobs_here


def test_all_that_can_be_moved_is(here: Path, there: Host) -> None:
    jobs.start([sys.executable, "-S", "-c", _COUNTER], "other")
    try:
        there.run("run", "-d", "--name", "counter", "--", "sleep", "1000")
        line = [*TORPOR, "migrate", "--all", "there", *there.words, "-y"]
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    finally:
        _end("other")
    assert done.returncode == 1 and "torpor: job:counter: there refuses" in done.stderr
    assert "job:other: other runs on there" in done.stdout and "1 of 2 have been moved" in done.stdout
    assert "job:counter  NOT MOVED: there refuses" in done.stdout and "job:other    stopped for" in done.stdout
    assert there.jobs() == {"counter": "running", "other": "running"}
    _runs_on(here)


def test_several_at_a_time(here: Path, there: Host) -> None:
    names = ("counter", "other", "third")
    for name in names[1:]:
        jobs.start([sys.executable, "-S", "-c", _COUNTER], name)
    try:
        line = [*TORPOR, "migrate", *names, "nobody", "there", *there.words, "--parallel", "3", "--json"]
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    finally:
        for name in names[1:]:
            _end(name)
    came = {each["what"]: each for each in json.loads(done.stdout)}
    assert done.returncode == came["nobody"]["exit_code"] == 1 and "nobody" in came["nobody"]["error"]
    assert all(came[name]["host"] == "there" and came[name]["downtime_s"] > 0 for name in names)
    assert jobs.list_jobs() == [] and there.jobs() == dict.fromkeys(names, "running") and there.leftovers() == []


def test_a_dry_run_changes_nothing(here: Path, there: Host) -> None:
    assert "nothing stands in the way" in _migrate(there, "--dry-run")
    assert jobs.find("counter").status == jobs.RUNNING and there.jobs() == {}


def test_what_the_destination_refuses_runs_on(here: Path, there: Host) -> None:
    there.run("run", "-d", "--name", "counter", "--", "sleep", "1000")
    said = _migrate(there, returncode=1)
    assert "a job called counter is running here" in said and "--name" in said
    _runs_on(here)
    assert there.jobs() == {"counter": "running"}


def test_a_host_that_cannot_be_reached(here: Path, there: Host, tmp_path: Path) -> None:
    line = [*TORPOR, "migrate", "counter", "there", "--rsh", "false", "-y"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "false ended with 1" in done.stderr
    _runs_on(here)


def _runs_on(here: Path) -> None:
    """It runs here, as before, and nothing is left of the attempt."""
    job = jobs.find("counter")
    assert job.status == jobs.RUNNING
    numbers = [int(line) for line in job.log.read_text().split("\n")[:-1]]
    after = _wait_for_line(job.log, len(numbers) + 2)
    assert after == list(range(len(after)))
    assert not (here / "migrating").is_dir() or os.listdir(here / "migrating") == []
    assert not (here / "checkpoints").is_dir() or os.listdir(here / "checkpoints") == []


#: Writes pages at random as fast as it can, and checks each before.
_RANDOM_WRITER = """
import random
chance, n_pages = random.Random(1), 4096
data, model, n = bytearray(n_pages * 4096), [0] * n_pages, 0
while True:
    for _ in range(2000):
        page = chance.randrange(n_pages)
        at = page * 4096 + page % 4000
        assert data[at] == model[page], page
        model[page] = data[at] = chance.randrange(256)
    print(n, flush=True)
    n += 1
"""


@pytest.mark.parametrize("words", [("--post-copy", "now"), ("--post-copy", "auto", "--downtime", "1ms")])
def test_memory_that_comes_when_it_runs_there_is_right(
    words: tuple[str, ...], tmp_path: Path, there: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "here"))
    job = jobs.start([sys.executable, "-S", "-c", _RANDOM_WRITER], "counter")
    try:
        _wait_for_line(job.log, 3)
        made = json.loads(_migrate(there, "--json", *words))
    finally:
        _end("counter")
    assert made["later_bytes"] > 1 << 20 and bool(made["rounds"]) == ("now" not in words)
    after = _wait_for_line(there.state / "jobs/counter/log", 20)
    assert after == list(range(after[0], after[0] + len(after)))
    assert jobs.list_jobs() == [] and there.jobs() == {"counter": "running"} and there.leftovers() == []
    assert os.listdir(tmp_path / "here/migrating") == []
