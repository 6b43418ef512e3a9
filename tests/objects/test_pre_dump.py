"""A pre-dump: the memory of a tree that runs on, from which a dump that comes later can take its pages."""

import sys

import pytest

from harness import engine, generations, parent_images
from harness.engine import EngineError
from harness.program import Program
from harness.workload import Workload
from torpor.base.records import replace
from torpor.engine.dump import run
from torpor.engine.dump.phases import PRE_DUMP
from torpor.engine.dump.session import DumpSession
from torpor.engine.options import DumpOptions
from torpor.images.pagemap import PAGE_BYTES
from torpor.images.stores.directory import DirStore
from torpor.objects.memory.tracking import Tracker

pytestmark = pytest.mark.root


LET_GO = next(phase for phase in PRE_DUMP if phase.name == "let go")


def memory_of(pid: int, addresses: list[int]) -> dict[int, bytes]:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        pages = {}
        for address in addresses:
            memory.seek(address)
            pages[address] = memory.read(PAGE_BYTES)
    return pages


def test_it_holds_memory_as_it_was_at_that_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or of a later one, if the next will have it again: of a process that changes its memory all the time."""
    with Workload.start("counter") as workload, Tracker() as tracker:
        workload.wait_ready()
        pages: dict[int, bytes] = {}

        def look(session: DumpSession) -> None:
            ranges = session.scans[workload.pid].found.ranges
            addresses = [at for start, end in ranges for at in range(start, end, PAGE_BYTES)]
            pages.update(memory_of(workload.pid, addresses))
            LET_GO.run(session)

        table = tuple(replace(phase, run=look) if phase is LET_GO else phase for phase in PRE_DUMP)
        monkeypatch.setattr(run, "PRE_DUMP", table)
        options = DumpOptions(tracker=tracker)
        stats = run.pre_dump(workload.pid, workload.images, options)
        monkeypatch.undo()
        with DirStore(workload.images) as store:
            found = parent_images.pages_of(store, workload.pid)
            assert store.names() == [
                "inventory.img", f"pagemap-{workload.pid}.img", "pages-1.img", "stats-dump", "torpor.manifest",
            ]  # fmt: skip
        after = workload.base / "after"
        after.mkdir()
        run.pre_dump(workload.pid, after, options)
        with DirStore(after) as store:
            written = parent_images.pages_of(store, workload.pid)
        assert found.keys() == pages.keys()
        assert {at for at, page in pages.items() if found[at] != page} <= written.keys()
        assert len(written) < len(found)
        assert len(found) == stats.pages_written > 10
        workload.expect_pass()


@pytest.mark.parametrize("name", ["private_memory", "copy_on_write", "shared_anonymous", "family", "threads"])
def test_a_dump_takes_its_pages_from_it(name: str) -> None:
    with Workload.start(name) as workload:
        workload.wait_ready()
        before = workload.base / "before"
        before.mkdir()
        run.pre_dump(workload.pid, before)
        (workload.images / "parent").symlink_to("../before")
        workload.dump()
        assert parent_images.lean_on_parent(workload.images) > 10
        workload.restore()
        workload.expect_pass()


@pytest.mark.parametrize("name", ["private_memory", "shared_anonymous", "copy_on_write"])
def test_each_page_is_that_of_the_last_moment(name: str) -> None:
    """Of two pre-dumps and the dump that follows, between which the memory changes."""
    with Workload.start(name) as workload:
        workload.wait_ready()
        changed, memory = generations.dump(workload, earlier=run.pre_dump)
        assert len(changed) > 4
        workload.restore()
        assert not generations.changes_in(workload, memory)


PROGRAM = """
import mmap, os, signal
with open("library", "w+b") as file:
    file.write(bytes(4096))
    file.flush()
    memory = mmap.mmap(file.fileno(), 4096, flags=mmap.MAP_PRIVATE)
os.unlink("library")
memory[0] = 7
print("ready", flush=True)
signal.pause()
"""


def test_it_holds_nothing_but_memory() -> None:
    """Not the contents of a file that is mapped and has no name any more, either."""
    with Program() as program:
        program.start([sys.executable, "-c", PROGRAM])
        program.wait_log("ready")
        run.pre_dump(program.pid, program.images)
        names = {path.name for path in program.images.iterdir()}
        images = {"inventory.img", f"pagemap-{program.pid}.img", "pages-1.img", "stats-dump", "torpor.manifest"}
        assert names == images
        program.sleep_and_wake()


def test_it_cannot_be_restored_by_itself() -> None:
    with Workload.start("counter") as workload:
        workload.wait_ready()
        run.pre_dump(workload.pid, workload.images)
        with pytest.raises(EngineError, match="pre-dump"):
            engine.restore(workload.images)
        workload.expect_pass()
