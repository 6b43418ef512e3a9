"""New memory that is filled without being cleared first."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from torpor.images import messages as m
from torpor.kernel import vm
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.memory import bulk, vmas
from torpor.objects.memory.areas import ANON_PRIVATE
from torpor.tracee import stub
from torpor.tracee.batch import Batch
from torpor.tracee.remote import kill_and_reap
from torpor.tracee.stub import Stub

pytestmark = pytest.mark.root

AT = 0x10_0000_0000
N_BYTES = 8 << 20
_ANONYMOUS = 0x22


class Reader:
    """Of pages each of which has other bytes, and that nobody has twice."""

    size = N_BYTES

    def read_at(self, offset: int, into: memoryview) -> None:
        into[:] = self.bytes(offset, into.nbytes)

    @staticmethod
    def bytes(offset: int, n_bytes: int) -> bytes:
        first, last = offset // PAGE_SIZE, -(-(offset + n_bytes) // PAGE_SIZE)
        whole = b"".join((number + 1).to_bytes(4, "little") * (PAGE_SIZE // 4) for number in range(first, last))
        return whole[offset - first * PAGE_SIZE :][:n_bytes]

    def close(self) -> None:
        pass


@pytest.fixture
def puppet() -> Iterator[Stub]:
    made = stub.spawn(stub.find_area([(AT, AT + N_BYTES)]), keep_fds={})
    yield made
    with suppress(ProcessLookupError):
        kill_and_reap([made.thread])
    made.life.close()


def entry(start: int, end: int, *, madv: int = 0) -> m.vma_entry:
    return m.vma_entry(start=start, end=end, pgoff=0, shmid=0, prot=3, flags=_ANONYMOUS, status=ANON_PRIVATE, fd=-1,
                       madv=madv)  # fmt: skip


def make(puppet: Stub, entries: list[m.vma_entry]) -> None:
    batch = Batch()
    for each in entries:
        vmas.restore_map(each, None, True, batch)
    puppet.runner.run(batch)


def test_pages_are_where_they_belong_and_nothing_is_left_of_it(puppet: Stub) -> None:
    """A large mapping and a small one beside it, an extent that lies in both, one page by itself, and a hole."""
    pid, middle = puppet.thread.tgid, AT + N_BYTES - (512 << 10)
    entries = [entry(AT, middle), entry(middle, AT + N_BYTES)]
    make(puppet, entries)
    extents = [(AT + 2 * PAGE_SIZE, AT + 3 * PAGE_SIZE, 0), (AT + 16 * PAGE_SIZE, middle + 4 * PAGE_SIZE, PAGE_SIZE)]
    with_bulk = bulk.opened(puppet.runner, entries, extents)
    assert with_bulk is not None
    with_bulk.close()
    n_pages = bulk.write(puppet.runner, entries, extents, Reader())
    assert n_pages == sum(end - start for start, end, _ in extents) // PAGE_SIZE
    for start, end, offset in extents:
        assert vm.read(pid, start, end - start) == Reader.bytes(offset, end - start)
    assert not any(vm.read(pid, AT, 2 * PAGE_SIZE)) and not any(vm.read(pid, AT + 3 * PAGE_SIZE, 13 * PAGE_SIZE))
    smaps = Path(f"/proc/{pid}/smaps").read_text()
    assert not [line for line in smaps.splitlines() if line.startswith("VmFlags:") and " um" in line]
    assert "userfaultfd" not in "".join(os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd"))


def test_a_puppet_that_is_dead_is_no_such_process(puppet: Stub) -> None:
    entries, extents = [entry(AT, AT + N_BYTES)], [(AT, AT + N_BYTES, 0)]
    make(puppet, entries)
    opened = bulk.opened(puppet.runner, entries, extents)
    assert opened is not None
    with opened:
        kill_and_reap([puppet.thread])
        with pytest.raises(ProcessLookupError):
            opened.write([(AT, PAGE_SIZE)], memoryview(bytearray(PAGE_SIZE)))


@pytest.mark.parametrize("madv", [0, 1 << 14])
def test_little_memory_and_memory_in_huge_pages_is_written_by_faults(puppet: Stub, madv: int) -> None:
    n_bytes = N_BYTES if madv else 1 << 20
    entries = [entry(AT, AT + n_bytes, madv=madv)]
    make(puppet, entries)
    extents = [(AT, AT + n_bytes, 0)]
    assert bulk.opened(puppet.runner, entries, extents) is None
    assert bulk.write(puppet.runner, entries, extents, Reader()) == n_bytes // PAGE_SIZE
    assert vm.read(puppet.thread.tgid, AT, n_bytes) == Reader.bytes(0, n_bytes)
