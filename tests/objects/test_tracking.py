"""Dumps of what was written since the one before, of a tree that does nothing but write: compared byte by byte."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from harness import engine, generations, huge_pages
from harness.events import ProcessWatch, time_limit_s
from harness.program import Program
from harness.skips import need_tracking
from harness.workload import Workload
from torpor.base.ids import Pid
from torpor.base.records import replace
from torpor.engine.dump import run
from torpor.engine.dump.phases import DUMP
from torpor.engine.dump.session import DumpSession
from torpor.engine.options import DumpOptions
from torpor.images import kinds, manifest
from torpor.images.pagemap import load_pagemap
from torpor.images.stores.directory import DirStore
from torpor.migrate.rounds import Aim, Round, Rounds
from torpor.objects.memory.tracking import Tracker
from torpor.objects.policy import FilePolicy, Policies
from torpor.tracee import keeper

pytestmark = pytest.mark.root

LET_GO = next(phase for phase in DUMP if phase.name == "let go")
POLICIES = Policies(files=FilePolicy(external_pipes=True))
WAYS = [
    "write", "kernel write", "map", "remap", "drop write", "guard write", "protect write", "library", "thp", "shared",
    "segment", "fork write", "threads", "fork map remap drop guard protect library thp shared segment kernel",
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def tracking() -> None:
    need_tracking()


def pages_in_parents(images: Path) -> int:
    """How many pages of private memory the set says to be in those before it."""
    n_pages = 0
    with DirStore(images) as store:
        for name in store.names():
            found = kinds.by_file_name(name)
            if found is not None and found[0] is kinds.PAGEMAP and isinstance(found[1], int):
                n_pages += sum(run.n_pages for run in load_pagemap(store, found[1]).runs if run.in_parent)
    return n_pages


def pages_here(images: Path) -> int:
    with DirStore(images) as store:
        return sum(store.size_of(name) for name in store.names() if name.startswith("pages-")) // generations.PAGE


def before(workload: Workload, n_sets: int) -> list[Path]:
    found = [workload.base / f"before-{number}" for number in range(n_sets)]
    for images in found:
        images.mkdir()
    return found


def dump_seen(
    workload: Workload, options: DumpOptions, monkeypatch: pytest.MonkeyPatch
) -> dict[tuple[int, int], bytes]:
    """Dump the workload; its memory at the last moment."""
    memory: dict[tuple[int, int], bytes] = {}

    def look(session: DumpSession) -> None:
        memory.update(generations.memory_of(workload))
        LET_GO.run(session)

    monkeypatch.setattr(run, "DUMP", tuple(replace(phase, run=look) if phase is LET_GO else phase for phase in DUMP))
    run.dump(workload.pid, workload.images, options)
    workload.reap()
    return memory


def check(workload: Workload, memory: dict[tuple[int, int], bytes]) -> None:
    workload.restore(options=("--leave-stopped",))
    assert not generations.changes_in(workload, memory)
    for pid in workload.processes():
        with suppress(ProcessLookupError):  # children that the first one ends as soon as it goes on
            os.kill(pid, signal.SIGCONT)
    workload.expect_pass()


@pytest.mark.parametrize("ways", WAYS)
def test_each_byte_is_that_of_the_last_moment(ways: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Workload.start("churn", ways.split()) as workload:
        workload.wait_ready()
        earlier = ""
        for images in before(workload, 3):
            options = DumpOptions(parent=earlier, policies=POLICIES)
            run.pre_dump(workload.pid, images, options)
            earlier = f"../{images.name}"
        memory = dump_seen(workload, DumpOptions(parent=earlier, policies=POLICIES), monkeypatch)
        assert pages_in_parents(workload.images) >= 512
        check(workload, memory)


@pytest.mark.parametrize("when", ["before the dump", "before another look"])
@pytest.mark.parametrize("what", ["anonymous", "file", "memfd", "huge"])
def test_what_was_dropped_is_what_is_behind(what: str, when: str) -> None:
    """The kernel keeps in mind that a dropped page of a mapped file was protected, as if it were there."""
    pages = huge_pages.reserved(20) if what == "huge" else nullcontext()
    with pages, Workload.start("dropped_pages", [what]) as workload:
        workload.wait_ready()
        first, second = before(workload, 2)
        criu("pre-dump", workload, first)
        done = workload.directory / "done"
        os.mkfifo(done)
        os.kill(workload.pid, signal.SIGUSR1)
        done.read_bytes()
        earlier = "../before-0"
        if when == "before another look":
            criu("pre-dump", workload, second, "--prev-images-dir", earlier)
            earlier = "../before-1"
        workload.dump(options=("--prev-images-dir", earlier))
        assert pages_in_parents(workload.images) > 10
        workload.restore()
        workload.expect_pass()


def test_a_tracker_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with Workload.start("churn", ["remap", "write"]) as workload, Tracker() as tracker:
        workload.wait_ready()
        *sets, last = [*before(workload, 2), workload.images]
        for images in sets:
            run.pre_dump(workload.pid, images, DumpOptions(tracker=tracker))
        memory = dump_seen(workload, DumpOptions(tracker=tracker), monkeypatch)
        assert pages_here(sets[1]) < pages_here(sets[0])
        for images, earlier in ((last, sets[1]), (sets[1], sets[0])):
            (images / "parent").symlink_to(f"../{earlier.name}")
        check(workload, memory)


_SETS, _PAGES = 6, 2048
_SCATTERED = f"""
import mmap, signal
memory = mmap.mmap(-1, {_PAGES} * 4096, flags=mmap.MAP_PRIVATE)
memory.madvise(mmap.MADV_NOHUGEPAGE)
expected = [100] * {_PAGES}
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
for number in range({_SETS}):
    for page in range(number, {_PAGES}, 16 if number else 1):
        memory[page * 4096] = expected[page] = number
    print("written", number, flush=True)
    signal.sigwait([signal.SIGUSR1])
print([memory[page * 4096] for page in range({_PAGES})] == expected, flush=True)
"""


def test_page_maps_do_not_grow_with_the_number_of_sets() -> None:
    """Of a program that writes here and there: what the sets before have is not told piece by piece."""
    with Program() as program, Tracker() as tracker:
        program.start([sys.executable, "-c", _SCATTERED])
        n_runs = []
        for number in range(_SETS):
            program.wait_log(f"written {number}\n")
            images = program.base / f"set-{number}"
            images.mkdir()
            if number:
                (images / "parent").symlink_to(f"../set-{number - 1}")
            options = DumpOptions(tracker=tracker)
            if number < _SETS - 1:
                run.pre_dump(program.pid, images, options)
                os.kill(program.pid, signal.SIGUSR1)
            else:
                run.dump(program.pid, images, options)
            with DirStore(images) as store:
                n_runs.append(len(load_pagemap(store, program.pid).runs))
        assert n_runs[1] > _PAGES // 16 * 2
        assert max(n_runs[2:]) < n_runs[1] * 1.1
        assert program.root is not None
        program.root.reap()
        program.images = images
        program.restore()
        os.kill(program.pid, signal.SIGUSR1)
        program.wait_log("True\n")


def test_sets_of_rounds_get_their_sums_only_if_they_are_to_last() -> None:
    with Workload.start("counter") as workload, Tracker() as tracker:
        workload.wait_ready()
        rounds = Rounds(Aim(), lambda made: None)
        for number in (1, 2):
            images = workload.base / f"round{number}"
            run.pre_dump(workload.pid, images, DumpOptions(tracker=tracker, owns_directory=True, unsettled=True))
            rounds.done.append(Round(number, 0, 0, 0, 0, 0))

        def are_summed() -> list[bool]:
            found = []
            for each in rounds.done:
                with DirStore(workload.base / f"round{each.number}") as store:
                    made = manifest.load(store)
                    assert made is not None and made.files
                    found.append(made.has_sums)
            return found

        assert are_summed() == [False, False]
        rounds.settle(workload.base)
        assert are_summed() == [True, True]
        workload.expect_pass()


def criu(command: str, workload: Workload, images: Path, *options: str) -> str:
    """Run the command on the workload; its log."""
    line = [*engine.command(), command, "-t", str(workload.pid), "-D", str(images), "-o", "log", "-v4", *options]
    subprocess.run(line, check=True, cwd="/")
    return (images / "log").read_text()


def holders_of(workload: Workload) -> list[str]:
    """What the workload's processes hold that a tracker may have left: descriptors, and protected mappings."""
    found = []
    for pid in workload.processes():
        names = [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]
        found += [f"{pid}: {name}" for name in names if "userfaultfd" in name]
        flags = [line for line in Path(f"/proc/{pid}/smaps").read_text().splitlines() if line.startswith("VmFlags:")]
        found += [f"{pid}: protected" for line in flags if {"uw", "um", "ui"} & {*line.split()}]
        found += [f"{pid}: scratch" for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "rwxp" in line]
    return found


def keepers(workload: Workload) -> list[str]:
    """The names of sockets of those who keep track of it."""
    prefix = f"@torpor-keeper-{workload.pid}-"
    lines = Path("/proc/net/unix").read_text().splitlines()
    return [line.split()[-1] for line in lines if prefix in line]


def test_by_commands() -> None:
    with Workload.start("private_memory") as workload:
        workload.wait_ready()
        first, second = before(workload, 2)
        criu("pre-dump", workload, first, "--track-mem")
        assert keepers(workload) and not [each for each in holders_of(workload) if "protected" not in each]
        assert generations.change(workload, 1)
        criu("pre-dump", workload, second, "--track-mem", "--prev-images-dir", "../before-0")
        assert pages_in_parents(second) > 10
        assert generations.change(workload, 2)
        memory = generations.memory_of(workload)
        workload.dump(options=("--track-mem", "--prev-images-dir", "../before-1"))
        assert os.readlink(workload.images / "parent") == "../before-1"
        assert pages_in_parents(workload.images) > 10
        assert not keepers(workload)
        workload.restore()
        assert not generations.changes_in(workload, memory)


def test_dumps_that_go_on_lean_on_each_other() -> None:
    with Workload.start("counter") as workload:
        workload.wait_ready()
        first, second = before(workload, 2)
        criu("dump", workload, first, "--track-mem", "--leave-running")
        criu("dump", workload, second, "--track-mem", "--leave-running", "--prev-images-dir", "../before-0")
        assert pages_in_parents(second) > 10
        log = criu("dump", workload, workload.images, "--leave-running", "--prev-images-dir", "../before-1")
        assert "all memory is copied" not in log and pages_in_parents(workload.images) > 10
        assert not keepers(workload) and not holders_of(workload)
        workload.expect_pass()


def whole_because(workload: Workload, images: Path, *options: str) -> str:
    log = criu("dump", workload, images, "--leave-running", *options)
    assert not pages_in_parents(images)
    (line,) = [line for line in log.splitlines() if "all memory is copied" in line]
    return line


def test_a_keeper_that_an_earlier_engine_has_left() -> None:
    """It knows of no page server: torpor was updated between the two dumps."""
    with Workload.start("private_memory") as workload:
        workload.wait_ready()
        (first,) = before(workload, 1)
        criu("pre-dump", workload, first, "--track-mem")
        kept = keeper.find(Pid(workload.pid))
        assert kept is not None
        ident, spaces, _ = kept.known
        kept.end()
        fds = [fd.fileno() for fd in kept.fds]
        keeper.keep(Pid(workload.pid), (ident, spaces), fds, forgotten=("", spaces))
        for fd in kept.fds:
            fd.close()
        kept.close()
        workload.dump(options=["--track-mem", "--prev-images-dir", "../before-0"])
        assert pages_in_parents(workload.images) > 0
        workload.restore()
        workload.expect_pass()


def test_without_a_keeper_all_is_copied_and_said() -> None:
    with Workload.start("counter") as workload:
        workload.wait_ready()
        first, second = before(workload, 2)
        criu("pre-dump", workload, first)
        criu("pre-dump", workload, second)
        assert "others were made since" in whole_because(workload, workload.images, "--prev-images-dir", "../before-0")
        assert "nobody has kept track" in whole_because(workload, workload.images, "--prev-images-dir", "../before-1")
        workload.expect_pass()


def test_memory_is_still_ours_after_a_dump_that_forgot_and_died() -> None:
    """What it was to be newer than is known no more; whose the protection is, still is, and it is taken away."""
    with Workload.start("private_memory") as workload:
        workload.wait_ready()
        (first,) = before(workload, 1)
        criu("pre-dump", workload, first)
        kept = keeper.find(Pid(workload.pid))
        assert kept is not None
        for fd in kept.fds:
            fd.close()
        kept.forget()
        kept.close()
        assert "nobody has kept track" in whole_because(workload, workload.images, "--prev-images-dir", "../before-0")
        assert not keepers(workload) and not holders_of(workload)
        workload.expect_pass()


def test_whoever_keeps_track_holds_nothing_else_and_all_ends_with_him() -> None:
    with Workload.start("private_memory") as workload:
        workload.wait_ready()
        criu("pre-dump", workload, workload.images)
        links = {pid: _links(pid) for pid in map(int, filter(str.isdigit, os.listdir("/proc")))}
        words = os.fsencode(workload.images)
        (pid,) = [pid for pid, found in links.items() if "anon_inode:[userfaultfd]" in found and words in _line(pid)]
        kinds_of_files = sorted(link.partition("[")[0] for link in links[pid])
        assert kinds_of_files == sorted(["/dev/null"] * 3 + ["anon_inode:"] * 2 + ["socket:"]), links[pid]
        assert [os.readlink(f"/proc/{pid}/{name}") for name in ("cwd", "root")] == ["/", "/"]
        assert os.getsid(pid) not in (os.getsid(0), os.getsid(workload.pid))
        watch = ProcessWatch(pid)
        os.kill(pid, signal.SIGKILL)
        assert watch.wait_ended(time_limit_s(20))
        watch.close()
        assert not holders_of(workload) and not keepers(workload)
        workload.expect_pass()


def _links(pid: int) -> list[str]:
    """What its descriptors lead to; nothing for one that is gone."""
    try:
        return [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return []


def _line(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@pytest.mark.parametrize("given", ["../nowhere", ".", "../dir"])
def test_what_are_no_images_is_refused(given: str) -> None:
    with Workload.start("counter") as workload:
        workload.wait_ready()
        with pytest.raises(engine.EngineError, match="prev-images-dir"):
            workload.dump(options=("--prev-images-dir", given))
        workload.expect_pass()


def test_the_end_of_the_target_ends_the_keeper() -> None:
    with Workload.start("counter") as workload:
        workload.wait_ready()
        criu("pre-dump", workload, workload.images)
        (name,) = keepers(workload)
        workload.expect_pass()
        wait_gone(name)


def wait_gone(name: str) -> None:
    """Until nobody listens to *name*."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(time_limit_s(30))
        try:
            client.connect("\0" + name[1:])
        except ConnectionRefusedError:
            return
        with suppress(ConnectionResetError):
            while client.recv(1 << 16):
                pass


def blocks_of(images: Path) -> int:
    return sum(path.stat().st_blocks for path in images.glob("pages-*.img"))


@pytest.mark.parametrize("how", ["while dumping", "afterwards"])
def test_what_is_copied_again_is_taken_out_of_the_sets_before(how: str) -> None:
    with Workload.start("shared_anonymous") as workload:
        workload.wait_ready()
        first, second = before(workload, 2)
        words = ["--auto-dedup"] if how == "while dumping" else []
        criu("pre-dump", workload, first)
        was = blocks_of(first)
        assert generations.change(workload, 1)
        criu("pre-dump", workload, second, "--prev-images-dir", "../before-0", *words)
        assert generations.change(workload, 1) and generations.change(workload, 2)
        memory = generations.memory_of(workload)
        workload.dump(options=("--prev-images-dir", "../before-1", *words))
        if how == "afterwards":
            assert blocks_of(first) == was
            for images in (second, workload.images):
                subprocess.run([*engine.command(), "dedup", "-D", str(images)], check=True)
        assert blocks_of(first) < was
        assert pages_in_parents(workload.images) > 10
        workload.restore()
        assert not generations.changes_in(workload, memory)


def test_a_set_in_use_stays_as_it_is() -> None:
    with Workload.start("counter") as workload:
        workload.wait_ready()
        (first,) = before(workload, 1)
        criu("pre-dump", workload, first)
        criu("dump", workload, workload.images, "--leave-running", "--prev-images-dir", "../before-0")
        was = blocks_of(first)
        reader = os.open(first, os.O_RDONLY)
        try:
            fcntl.flock(reader, fcntl.LOCK_SH)
            line = [*engine.command(), "dedup", "-D", str(workload.images)]
            done = subprocess.run(line, capture_output=True, text=True, check=False)
        finally:
            os.close(reader)
        assert done.returncode and "somebody reads" in done.stderr
        assert blocks_of(first) == was
        workload.expect_pass()
