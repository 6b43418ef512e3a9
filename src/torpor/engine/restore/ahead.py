"""A restore that is begun before its images are complete: its stub is there, and has memory in it already.

Whoever gets the sets of a migration's rounds has each of them taken; the restore of the last set then has the root
puppet take the stub's address space over, if it can.  All of it by one thread, which traces the stub.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torpor.base.fds import Closing
from torpor.base.typed import TYPE_CHECKING
from torpor.images import kinds
from torpor.images.pagemap import Extent
from torpor.images.pages import Piece, Range
from torpor.images.store import ImageStore, load_one
from torpor.kernel import vm
from torpor.kernel.arch import nr
from torpor.kernel.rlimits import raise_descriptor_limit
from torpor.objects.memory.parked import Parked
from torpor.tracee import stub
from torpor.tracee.batch import Batch
from torpor.tracee.puppet import Channel

if TYPE_CHECKING:
    from torpor.images.stores.spooled import PlacedStore

_CHANNEL = 3


class Ahead(Closing):
    """Memory of the process *ident*, the root of the tree, that lies in a stub.  A context manager.

    *sibling*: the stub, and so the root that is cloned from it, is a child of our parent.
    """

    def __init__(self, ident: int, *, sibling: bool = False) -> None:
        self._ident = ident
        self._birth = stub.Birth(0, (), sibling=True) if sibling else None
        self._channel = Channel(_CHANNEL)
        self._stub: stub.Stub | None = None
        #: Without any of the memory: it may outlive the stub.
        self._guard: stub.Stub | None = None
        self._parked: Parked | None = None

    def take(self, store: ImageStore) -> None:
        """The next set, whose images of mappings and whose pages are complete.

        ImageError; TorporError where there is no memory for it.
        """
        made, parked = self._begin(store)
        parked.take(made.runner, store)

    def _begin(self, store: ImageStore) -> tuple[stub.Stub, Parked]:
        """The stub, which keeps clear of what is mapped as the first set says."""
        if self._stub is None:
            mappings = [(vma.start, vma.end) for vma in load_one(store, kinds.MM, self._ident).vmas]
            raise_descriptor_limit()
            area = stub.find_area(mappings)
            self._guard = stub.spawn(area, keep_fds={})
            self._stub = stub.spawn(area, keep_fds={_CHANNEL: self._channel.far.fileno()}, birth=self._birth)
            self._parked = Parked(self._ident, (area, area + stub.AREA_SIZE))
        assert self._parked is not None
        return self._stub, self._parked

    def wanted(self, store: PlacedStore, name: str) -> Sequence[Extent]:
        """Placing: what of the pages that are about to come has its place in the stub.  Errors as of :meth:`take`."""
        if kinds.PAGES.parse_file_name(name) is None or not store.exists(kinds.MM.file_name(self._ident)):
            return ()
        made, parked = self._begin(store)
        return parked.begin(made.runner, store, name)

    def put(self, pieces: Sequence[Piece], data: memoryview) -> None:
        """Placing: have them there."""
        assert self._stub is not None
        vm.write_from(self._stub.runner.tid, pieces, memoryview(bytearray(data)) if data.readonly else data)

    def put_all_back(self) -> None:
        """All pages can be found in the images, wherever they are besides: others than the root's restore want them."""
        if self._stub is not None and self._parked is not None:
            self._parked.put_all_back(self._stub.runner)

    @property
    def is_sibling(self) -> bool:
        """Whether what is cloned from it is a child of our parent."""
        return self._birth is not None

    def parked(self, ident: int, mappings: Iterable[Range]) -> Parked | None:
        """The memory, if it is that of *ident*, and the stub's own lies in none of the *mappings* of the tree."""
        found = self._parked
        if self._stub is None or found is None or found.ident != ident:
            return None
        start, end = found.area
        if any(first < end and start < last for first, last in mappings):
            self.put_all_back()
            return None
        return found

    def give(self, channel: Channel, joins: Sequence[stub.Join]) -> tuple[stub.Stub, stub.Stub]:
        """The stub, in the namespaces *joins* and with the far end of *channel* instead of ours, and another one, that
        has nothing.  Both become the caller's.
        """
        made, guard = self._stub, self._guard
        assert made is not None and guard is not None
        numbers = self._channel.lend(made.runner, [channel.far.fileno(), *(join.fd for join in joins)])
        batch = Batch()
        for number, join in zip(numbers[1:], joins, strict=True):
            batch.call(nr.setns, number, join.flag)
        # Numbers that were free when these came may be the one that is wanted.
        if numbers[0] != channel.far_number:
            batch.call(nr.dup3, numbers[0], channel.far_number, 0)
        for number in {_CHANNEL, *numbers} - {channel.far_number}:
            batch.call(nr.close, number)
        made.runner.run(batch)
        self._stub = self._guard = None
        return made, guard

    def close(self) -> None:
        for made in (self._stub, self._guard):
            if made is not None:
                made.end()
        self._stub = self._guard = None
        self._channel.close()
