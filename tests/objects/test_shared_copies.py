"""Several copies of one tree share its memory, by way of a template."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import torpor
from harness.events import ProcessWatch, time_limit_s
from harness.workload import Workload
from torpor.base.errors import RestoreError
from torpor.base.ids import Pid
from torpor.engine.restore.template import Template
from torpor.images import kinds
from torpor.images.pages import open_contents
from torpor.images.store import load_all, load_one
from torpor.images.stores.directory import DirStore
from torpor.kernel.procfs.status import read_status
from torpor.kernel.vm import PAGE_SIZE

pytestmark = pytest.mark.root

N_COPIES = 3


@contextmanager
def dumped(name: str, *args: str) -> Iterator[Workload]:
    with Workload.start_in_job(name, args) as workload:
        workload.wait_ready()
        workload.dump()
        yield workload


def restore(workload: Workload, template: Template) -> int:
    """One more copy, which is stopped: what it does when it goes on is its own."""
    return torpor.restore(workload.images, template=template, leave_stopped=True, trust=True)


def tree_of(root: int) -> dict[int, int]:
    """The pids of a tree as the images have them, and as we see them."""
    found, pending = {}, [root]
    while pending:
        pid = pending.pop()
        status = read_status(Pid(pid))
        if status.state not in "ZX":
            found[int(status.ns_pids[-1])] = pid
        pending += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return found


def end(pid: int) -> None:
    with ProcessWatch(pid) as watch:
        os.kill(pid, signal.SIGKILL)
        assert watch.wait_ended(time_limit_s(20))
        watch.reap()


def go_on(root: int) -> None:
    for pid in tree_of(root).values():
        os.kill(pid, signal.SIGCONT)


def check_contents(workload: Workload, root: int) -> int:
    n_bytes = 0
    with DirStore(workload.images) as store:
        for ident, pid in tree_of(root).items():
            if not store.exists(f"pagemap-{ident}.img"):
                continue
            with (
                open_contents(store, ident, page_bytes=PAGE_SIZE) as contents,
                open(f"/proc/{pid}/mem", "rb", buffering=0) as memory,
            ):
                noted = noted_by_the_kernel(store, ident)
                for start, stop, _ in contents.extents:
                    n_bytes += stop - start
                    here, wanted = os.pread(memory.fileno(), stop - start, start), contents.between(start, stop)
                    assert wanted is not None
                    assert without(noted, start, here) == without(noted, start, wanted), hex(start)
    return n_bytes


def noted_by_the_kernel(store: DirStore, ident: int) -> list[tuple[int, int]]:
    """Where the threads' areas of rseq(2) lie, and their lengths: which processor, and which of the process's own."""
    (entry,) = (entry for entry in load_all(store, kinds.PSTREE) if entry.pid == ident)
    found = [load_one(store, kinds.CORE, tid).thread_core.rseq_entry for tid in entry.threads]
    return [(each.rseq_abi_pointer, each.rseq_abi_size) for each in found]


def without(noted: list[tuple[int, int]], start: int, content: bytes) -> bytes:
    """The *content* at *start*, with zeroes where the kernel writes."""
    changed = bytearray(content)
    for at, n_bytes in noted:
        if start <= at < start + len(content):
            changed[at - start : at - start + n_bytes] = bytes(n_bytes)
    return bytes(changed)


def own_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


def mappings(pid: int) -> list[str]:
    """Where they lie, how they are protected, and what they are of."""
    lines = (line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines())
    return [" ".join((words[0], words[1], *words[5:])) for words in lines]


@pytest.mark.parametrize("name", ["later_memory", "private_memory", "threads", "family", "copy_on_write"])
def test_each_has_the_bytes_of_the_images_and_goes_on(name: str) -> None:
    with dumped(name) as workload:
        with Template() as template:
            roots = [restore(workload, template) for _ in range(N_COPIES)]
        alone = torpor.restore(workload.images, leave_stopped=True, trust=True)
        try:
            assert len(set(roots)) == N_COPIES
            for root in roots:
                check_contents(workload, root)
                assert mappings(root) == mappings(alone)
        finally:
            for root in [alone, *roots[:-1]]:
                end(root)
        workload.runs_as(roots[-1])
        go_on(roots[-1])
        workload.expect_pass()


def test_pages_that_nobody_has_written_are_there_once() -> None:
    with dumped("later_memory") as workload:
        with Template() as template:
            roots = [restore(workload, template) for _ in range(N_COPIES)]
        try:
            assert all(check_contents(workload, root) > 7 << 20 for root in roots)
            assert all(own_bytes(root) < 1 << 20 for root in roots)
        finally:
            for root in roots:
                end(root)


def test_nothing_is_left_of_the_template() -> None:
    with dumped("later_memory") as workload:
        with Template() as template:
            root = restore(workload, template)
            held = template.pid
            assert held and Path(f"/proc/{held}").exists()
        end(root)
        assert not Path(f"/proc/{held}").exists()


def test_a_template_that_is_killed_stops_further_copies_and_no_others() -> None:
    with dumped("later_memory") as workload:
        with Template() as template:
            root = restore(workload, template)
            assert template.pid
            with ProcessWatch(template.pid) as watch:
                os.kill(template.pid, signal.SIGKILL)
                assert watch.wait_ended(time_limit_s(20))
            with pytest.raises(RestoreError, match=r"template .* has been killed"):
                restore(workload, template)
        workload.runs_as(root)
        go_on(root)
        workload.expect_pass()


def test_other_images_are_not_taken_for_the_same() -> None:
    with dumped("later_memory") as workload, dumped("private_memory") as other, Template() as template:
        root = restore(workload, template)
        with pytest.raises(RestoreError, match="there are other images"):
            restore(other, template)
        end(root)
