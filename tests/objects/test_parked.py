"""Memory that lies in the stub before the last images come: pages that are written there as they come."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from torpor.engine.restore.ahead import Ahead
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import StoreError
from torpor.images.manifest import Manifest
from torpor.images.pagemap import PE_PARENT, PageRun
from torpor.images.pages import StoreSink, open_contents, runs_of
from torpor.images.store import store_one
from torpor.images.stores.both import BothStore
from torpor.images.stores.memory import MemStore
from torpor.images.stores.spooled import Spool, SpooledStore
from torpor.images.stores.stream import Pipe, TarStore
from torpor.kernel import vm
from torpor.kernel.uapi.mman import MAP_ANONYMOUS, MAP_NORESERVE, MAP_PRIVATE
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.memory.areas import ANON_PRIVATE

pytestmark = pytest.mark.root
PID = 7
#: Two mappings, of 3 and 2 MiB.
ONE, TWO = 0x7000_0000_0000, 0x7000_1000_0000
SIZES = {ONE: 3 << 20, TWO: 2 << 20}
FIRST, SECOND = (random.Random(seed).randbytes(sum(SIZES.values())) for seed in (1, 2))
_NUMBERS = (
    "mm_start_code", "mm_end_code", "mm_start_data", "mm_end_data", "mm_start_stack", "mm_start_brk", "mm_brk",
    "mm_arg_start", "mm_arg_end", "mm_env_start", "mm_env_end", "exe_file_id",
)  # fmt: skip


@pytest.fixture
def ahead() -> Iterator[Ahead]:
    with Ahead(PID) as made:
        yield made


def _mm(flags: int = 0) -> m.mm_entry:
    mm = m.mm_entry()
    for name in _NUMBERS:
        setattr(mm, name, 0)
    for start, size in SIZES.items():
        mm.vmas.add(
            start=start, end=start + size, pgoff=0, shmid=0, prot=3, flags=MAP_PRIVATE | MAP_ANONYMOUS | flags,
            status=ANON_PRIVATE | 1, fd=-1,
        )  # fmt: skip
    return mm


def _set(
    path: Path, ranges: list[tuple[int, int]], data: bytes, held: list[PageRun], ahead: Ahead,
    parent: SpooledStore | None = None, mm: m.mm_entry | None = None, n_spaces: int = 1,
) -> SpooledStore:  # fmt: skip
    """A round's set as it comes: the pages of *ranges*, which are full of *data*, and what its parent has."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with TarStore(Pipe(fd, str(path)), str(path)) as tar:
        both = BothStore(MemStore(), tar)
        for ident in range(PID, PID + n_spaces):
            store_one(tar, kinds.MM, mm or _mm(), ident)
        sink = StoreSink(both, PAGE_SIZE, first=both.tell)
        n_bytes = sum(end - start for start, end in ranges)
        with sink.open(kinds.PAGEMAP, PID, n_bytes, (), lambda: runs_of(ranges, held, (), PAGE_SIZE)) as stream:
            for run in held:
                stream.run(run)
            at = 0
            for start, end in ranges:
                stream.write_at(stream.room([(start, end - start)]), [memoryview(data)[at : at + end - start]])
                at += end - start
        store_one(both, kinds.INVENTORY, m.inventory_entry(img_version=2))
        tar.commit(Manifest("0" * 20))
    with open(path, "rb") as stream_of_it:
        found = SpooledStore(stream_of_it, path.name, Spool(path.parent), parent=parent, placing=ahead)
    ahead.take(found)
    return found


def _whole() -> list[tuple[int, int]]:
    return [(start, start + size) for start, size in SIZES.items()]


def _here(ahead: Ahead) -> bytes:
    """What lies in the stub where the mappings are."""
    stub, parked = ahead._stub, ahead._parked
    assert stub is not None and parked is not None
    return b"".join(vm.read(stub.runner.tid, each.start, each.end - each.start) for each in parked._places)


def _read(store: SpooledStore) -> bytes:
    with open_contents(store, PID, page_bytes=PAGE_SIZE) as contents:
        found = [contents.between(*each) for each in _whole()]
    return b"".join(each or b"" for each in found)


def test_pages_of_a_round_are_there_when_it_has_come_and_nowhere_else(tmp_path: Path, ahead: Ahead) -> None:
    with _set(tmp_path / "1", _whole(), FIRST, [], ahead) as store:
        assert _here(ahead) == FIRST
        with pytest.raises(StoreError, match="has gone to where it belongs"):
            _read(store)
        ahead.put_all_back()
        assert _read(store) == FIRST == _here(ahead)


def test_a_later_round_takes_the_place_of_an_earlier_one(tmp_path: Path, ahead: Ahead) -> None:
    written = (ONE + (1 << 20), ONE + (3 << 20) - PAGE_SIZE)
    held = [
        PageRun(ONE, (1 << 20) // PAGE_SIZE, PE_PARENT, PAGE_SIZE),
        PageRun(ONE + (3 << 20) - PAGE_SIZE, 1, PE_PARENT, PAGE_SIZE),
        PageRun(TWO, SIZES[TWO] // PAGE_SIZE, PE_PARENT, PAGE_SIZE),
    ]
    n_bytes = written[1] - written[0]
    wanted = FIRST[: 1 << 20] + SECOND[:n_bytes] + FIRST[(1 << 20) + n_bytes :]
    with (
        _set(tmp_path / "1", _whole(), FIRST, [], ahead) as first,
        _set(tmp_path / "2", [written], SECOND, held, ahead, first) as second,
    ):
        assert _here(ahead) == wanted
        ahead.put_all_back()
        assert _read(second) == wanted


def test_what_has_no_place_any_more_is_found_in_the_images(tmp_path: Path, ahead: Ahead) -> None:
    """Both mappings have other flags, so they get other places, and the pages, which the round does not bring again."""
    held = [PageRun(ONE, SIZES[ONE] // PAGE_SIZE, PE_PARENT, PAGE_SIZE)]
    with (
        _set(tmp_path / "1", _whole(), FIRST, [], ahead) as first,
        _set(tmp_path / "2", [(TWO, TWO + SIZES[TWO])], SECOND, held, ahead, first, _mm(MAP_NORESERVE)) as second,
    ):
        assert _here(ahead) == FIRST[: SIZES[ONE]] + SECOND[: SIZES[TWO]]
        ahead.put_all_back()
        assert _read(second) == _here(ahead)


def test_what_the_last_set_maps_otherwise_is_found_in_the_images(tmp_path: Path, ahead: Ahead) -> None:
    runs = [PageRun(start, size // PAGE_SIZE, PE_PARENT, PAGE_SIZE) for start, size in SIZES.items()]
    with _set(tmp_path / "1", _whole(), FIRST, [], ahead) as first:
        last = MemStore(first)
        with StoreSink(last, PAGE_SIZE).open(kinds.PAGEMAP, PID, 0) as stream:
            for run in runs:
                stream.run(run)
        stub, parked = ahead._stub, ahead._parked
        assert stub is not None and parked is not None
        mm = _mm()
        mm.vmas[1].flags |= MAP_NORESERVE
        parked.fit(stub.runner, mm.vmas, last)
        assert parked.there == [(ONE, ONE + SIZES[ONE], 0)]
        with open_contents(last, PID, page_bytes=PAGE_SIZE) as contents:
            assert contents.between(TWO, TWO + SIZES[TWO]) == FIRST[SIZES[ONE] :]
            with pytest.raises(StoreError, match="has gone to where it belongs"):
                contents.between(ONE, ONE + PAGE_SIZE)


def test_of_several_processes_all_are_kept(tmp_path: Path, ahead: Ahead) -> None:
    """Others than the root's restore look at its pages then."""
    with _set(tmp_path / "1", _whole(), FIRST, [], ahead, n_spaces=2) as store:
        assert _here(ahead) == FIRST == _read(store)


def test_pages_without_a_map_before_them_are_kept(tmp_path: Path, ahead: Ahead) -> None:
    """As an earlier torpor sends them."""
    path = tmp_path / "1"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    with TarStore(Pipe(fd, str(path)), str(path)) as tar:
        store_one(tar, kinds.MM, _mm(), PID)
        with StoreSink(tar, PAGE_SIZE).open(kinds.PAGEMAP, PID, len(FIRST)) as stream:
            for start, size in SIZES.items():
                at = 0 if start == ONE else SIZES[ONE]
                stream.write_at(stream.room([(start, size)]), [memoryview(FIRST)[at : at + size]])
        store_one(tar, kinds.INVENTORY, m.inventory_entry(img_version=2))
        tar.commit(Manifest("0" * 20))
    with open(path, "rb") as archive, SpooledStore(archive, "1", Spool(tmp_path), placing=ahead) as store:
        ahead.take(store)
        assert _here(ahead) == FIRST == _read(store)


def test_a_stranger_gets_nothing_beside_the_mappings(tmp_path: Path, ahead: Ahead) -> None:
    """Pages that no mapping has stay in the images."""
    beside = TWO + SIZES[TWO]
    with _set(tmp_path / "1", [*_whole(), (beside, beside + PAGE_SIZE)], FIRST + bytes(PAGE_SIZE), [], ahead) as store:
        assert _here(ahead) == FIRST
        with open_contents(store, PID, page_bytes=PAGE_SIZE) as contents:
            assert contents.between(beside, beside + PAGE_SIZE) == bytes(PAGE_SIZE)
