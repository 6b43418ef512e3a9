"""Restores whose memory comes while the tree runs already."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import engine
from harness.engine import EngineError
from harness.events import wait_said
from harness.peers import LOOPBACK, Waiting, free_port, waiting
from harness.workload import Workload
from torpor.images.pages import open_contents
from torpor.images.stores.directory import DirStore
from torpor.kernel.vm import PAGE_SIZE
from torpor.migrate.announcing import SOCKET_NAME

pytestmark = pytest.mark.root

WORKLOADS = [
    "later_memory", "private_memory", "threads", "family", "shared_tables", "zombies",
    "growing_stack", "memfd", "undumpable", "credentials",
]  # fmt: skip


@contextmanager
def daemon(workload: Workload, *words: str) -> Iterator[Waiting]:
    """`criu lazy-pages` for the workload's images."""
    with waiting(["lazy-pages", "-W", str(workload.images), *words], workload.images) as found:
        yield found


def restore(workload: Workload, *words: str) -> None:
    workload.restore(options=["-W", str(workload.images), "--lazy-pages", *words])


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_tree_whose_memory_comes_later_finds_it_as_it_was(name: str) -> None:
    with Workload.start(name) as workload:
        workload.wait_ready()
        workload.dump()
        with daemon(workload) as bringing:
            restore(workload)
            workload.expect_pass()
            assert bringing.end() == 0, bringing.log


def test_what_is_done_to_memory_before_it_has_come() -> None:
    """The program goes on at once, and nothing comes but what it touches: the rest is asked for when it has ended."""
    with Workload.start("later_memory") as workload:
        workload.wait_ready()
        workload.dump()
        hook = workload.base / "hook"
        hook.write_text(f"#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION != pre-resume ] || kill -TERM {workload.pid}\n")
        hook.chmod(0o700)
        with daemon(workload) as bringing:
            restore(workload, "--action-script", str(hook))
            workload.expect_pass()
            assert bringing.end() == 0, bringing.log


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """The kernel notes in a program's memory on which it runs (rseq(2)): there is one only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.usefixtures("one_cpu")
def test_every_byte_is_that_of_the_images() -> None:
    with Workload.start("later_memory") as workload:
        workload.wait_ready()
        workload.dump()
        with daemon(workload) as bringing:
            # Stopped: what it does when it goes on is its own.
            restore(workload, "--leave-stopped")
            assert bringing.end() == 0, bringing.log
        n_bytes = 0
        with (
            DirStore(workload.images) as store,
            open_contents(store, workload.pid, page_bytes=PAGE_SIZE) as contents,
            open(f"/proc/{workload.pid}/mem", "rb", buffering=0) as memory,
        ):
            for start, end, _ in contents.extents:
                n_bytes += end - start
                assert os.pread(memory.fileno(), end - start, start) == contents.between(start, end), hex(start)
        assert n_bytes > 4 << 20
        assert not [line for line in Path(f"/proc/{workload.pid}/smaps").read_text().splitlines() if " um" in line]
        os.kill(workload.pid, signal.SIGCONT)
        workload.expect_pass()


def test_another_dump_of_it_is_as_good_as_the_first() -> None:
    with Workload.start("later_memory") as workload:
        workload.wait_ready()
        workload.dump()
        with daemon(workload) as bringing:
            restore(workload)
            assert bringing.end() == 0, bringing.log
        workload.dump()
        workload.restore()
        workload.expect_pass()


def test_one_that_is_killed_meanwhile_keeps_nobody_waiting() -> None:
    with Workload.start("later_memory") as workload:
        workload.wait_ready()
        workload.dump()
        hook = workload.base / "hook"
        hook.write_text(f"#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION != post-restore ] || kill -KILL {workload.pid}\n")
        hook.chmod(0o700)
        with daemon(workload) as bringing:
            with pytest.raises(EngineError):
                restore(workload, "--action-script", str(hook))
            assert bringing.end() == 1
            assert "hung up before all ran" in bringing.log


def test_nobody_there_to_bring_it() -> None:
    with Workload.start("later_memory") as workload:
        workload.wait_ready()
        workload.dump()
        with pytest.raises(EngineError, match="start `criu lazy-pages`"):
            restore(workload)
        workload.restore()
        workload.expect_pass()


def test_whoever_brings_it_may_come_a_little_later(tmp_path: Path) -> None:
    """Its socket is elsewhere until the restore has looked for it."""
    with Workload.start("later_memory") as workload:
        workload.wait_ready()
        workload.dump()
        log = workload.images / "restore.log"
        with (
            waiting(["lazy-pages", "-W", str(tmp_path)], workload.images) as bringing,
            ThreadPoolExecutor() as pool,
        ):
            restored = pool.submit(restore, workload)
            is_said = wait_said(log, "it is waited for", restored.done)
            (tmp_path / SOCKET_NAME).rename(workload.images / SOCKET_NAME)
            restored.result()
            assert is_said
            workload.expect_pass()
            assert bringing.end() == 0, bringing.log


def test_a_daemon_that_ends_before_all_run_ends_the_restore() -> None:
    with Workload.start("later_memory") as workload:
        workload.wait_ready()
        workload.dump()
        with daemon(workload) as bringing:
            hook = workload.base / "hook"
            hook.write_text(
                f"#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION != pre-resume ] && exit\n"
                f"kill -TERM {bringing.process.pid}; while [ -e /proc/{bringing.process.pid}/exe ]; do :; done\n"
            )
            hook.chmod(0o700)
            with pytest.raises(EngineError, match="criu lazy-pages has gone"):
                restore(workload, "--action-script", str(hook))
            assert bringing.end() == 128 + signal.SIGTERM
            assert "get" in bringing.log and "SIGBUS" in bringing.log
        assert not Path(f"/proc/{workload.pid}").exists()
        workload.restore()
        workload.expect_pass()


@contextmanager
def moving(workload: Workload, port: int, destination: Path) -> Iterator[tuple[Waiting, Waiting]]:
    """A dump that gives its pages at `port`, its images in `destination`, and who asks for them there."""
    destination.mkdir()
    at = ["--address", LOOPBACK, "--port", str(port)]
    with waiting(["dump", "-t", str(workload.pid), "--lazy-pages", *at], workload.images) as giving:
        for path in workload.images.iterdir():
            if path.is_file():
                (destination / path.name).write_bytes(path.read_bytes())
        with waiting(["lazy-pages", "-W", str(destination), "--page-server", *at], destination) as bringing:
            yield giving, bringing


def test_memory_comes_from_the_processes_that_were_dumped(tmp_path: Path) -> None:
    """Which are stopped until all of it has come, and end then; the copies run meanwhile, in a pid namespace."""
    with Workload.start_fresh("later_memory") as workload:
        workload.wait_ready()
        destination = tmp_path / "there"
        with moving(workload, free_port(), destination) as (giving, bringing):
            options = ["--external", "mnt[]", "-W", str(destination), "--lazy-pages"]
            pid = engine.restore(destination, options=options)
            assert bringing.end() == 0, bringing.log
            assert giving.end() == 0, giving.log
        assert sum(path.stat().st_size for path in destination.glob("pages-*")) < 1 << 20
        workload.go_on_as(pid)
        workload.expect_pass()


def test_until_somebody_has_asked_a_dump_can_be_taken_back() -> None:
    with Workload.start("later_memory") as workload:
        workload.wait_ready()
        words = ["dump", "-t", str(workload.pid), "--lazy-pages", "--address", LOOPBACK, "--port", str(free_port())]
        with waiting(words, workload.images) as giving:
            giving.process.send_signal(signal.SIGINT)
            assert giving.end() == 128 + signal.SIGINT
        workload.expect_pass()


def test_pages_of_images_on_another_host() -> None:
    port = free_port()
    with Workload.start("later_memory") as workload:
        workload.wait_ready()
        workload.dump()
        at = ["--address", LOOPBACK, "--port", str(port)]
        with waiting(["page-server", "--lazy-pages", *at], workload.images) as giving:
            with daemon(workload, "--page-server", *at) as bringing:
                restore(workload)
                workload.expect_pass()
                assert bringing.end() == 0, bringing.log
            assert giving.end() == 0, giving.log
