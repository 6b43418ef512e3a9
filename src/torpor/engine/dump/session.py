"""The state of one dump in progress, which its steps read and add to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from torpor.base.ids import Pid, TreePid
from torpor.base.records import dataclass, field
from torpor.base.typed import TYPE_CHECKING, BinaryIO
from torpor.engine.dump.ids import IdAllocator
from torpor.engine.options import DumpOptions, nobody
from torpor.engine.sets.streaming import StoreSet
from torpor.engine.sets.writing import NewSet
from torpor.engine.stats import DumpStats
from torpor.images import messages as m
from torpor.images.pages import Range, StoreSink
from torpor.images.store import ImageStore
from torpor.images.stores.late import LateStore
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.files.model import FileDump
from torpor.objects.files.table import kinds_alike
from torpor.objects.memory.contents import Memory, Noted
from torpor.objects.memory.segments import DumpedPages
from torpor.objects.memory.space import Scan
from torpor.objects.model import DumpProcess
from torpor.objects.outside import Outside
from torpor.objects.session import DumpContext
from torpor.tracee.tree import FrozenTree

if TYPE_CHECKING:
    from torpor.engine.dump.asking import Answered
    from torpor.engine.dump.cgroups import CgroupDump
    from torpor.engine.dump.earlier import Earlier
    from torpor.engine.dump.snapshots import Snapshots
    from torpor.engine.family import Belonging
    from torpor.images.stores.both import BothStore
    from torpor.objects.cgroup.freezer import Freezer
    from torpor.objects.memory.tracking import Tracker
    from torpor.tracee.keeper import Kept


@dataclass(slots=True)
class DumpSession:
    """What is known so far.

    ``hold`` is for what lasts, once there is no way back, until all is said and done.  ``late``: small images wait
    until the tree runs again, if it will and nobody is to see them before; ``store`` is where images go.
    """

    pid: Pid
    new: NewSet | StoreSet
    options: DumpOptions
    hold: ExitStack
    late: LateStore | None
    store: ImageStore
    context: DumpContext
    #: Memory alone is copied, for a dump that comes later.
    is_pre_dump: bool = False
    stats: DumpStats = field(default_factory=DumpStats)
    ids: IdAllocator = field(default_factory=IdAllocator)
    #: Our own namespaces, and the numbers of the dumper's tables.
    root_ids: m.task_kobj_ids_entry = field(default_factory=m.task_kobj_ids_entry)
    #: The tree as it was before all else: to look for children costs three system calls a thread.
    seen: list[Pid] = field(default_factory=list)
    #: Who is carried besides the tree, by the pid of its parent in the images.
    entered: dict[Pid, list[Pid]] = field(default_factory=dict)
    cgroups: CgroupDump | None = None
    #: What stops the tree, if it is not to be stopped task by task.
    freezer: Freezer | None = None
    #: The tree, from the moment at which it is.
    stopped: FrozenTree | None = None
    #: All of the tree, parents before children, from the moment at which they have been collected.
    processes: list[DumpProcess] = field(default_factory=list)
    belongings: dict[TreePid, Belonging] = field(default_factory=dict)
    seccomp: m.seccomp_entry = field(default_factory=m.seccomp_entry)
    #: Of each living process, by its pid: what is in its page tables.
    scans: dict[int, Scan] = field(default_factory=dict)
    #: What finds the holes of vast mappings, where the kernel does not.
    find_populated: Callable[[DumpProcess, DumpContext], list[Range] | None] | None = None
    #: The processes that have been asked, each with those of its answers that are not in the images yet.
    answered: list[Answered] = field(default_factory=list)
    #: The mappings of large processes as they were before it was stopped, where their flags need not be read again.
    earlier: Earlier | None = None
    #: What is copied when the tree runs again, if anything is.
    snapshots: Snapshots | None = None
    #: What is known of writes to memory since the images before, by pid, and which pages those have, by pid inside.
    tracker: Tracker | None = None
    kept: Kept | None = None
    #: Whether what is written from now on is to be noted.
    tracks: bool = False
    noted: dict[Pid, Noted] = field(default_factory=dict)
    held: dict[TreePid, list[Range]] = field(default_factory=dict)
    #: Memory that is copied when its process runs again.
    memories: dict[Pid, Memory] = field(default_factory=dict)
    #: Where images go if they go somewhere else, too; what is kept back here until all have gone, and which images of
    #: pages are still to be written then, in the order of the processes.
    both: BothStore | None = None
    here: LateStore | None = None
    owed: list[str] = field(default_factory=list)
    #: Whether a network namespace of the tree's own has been locked, if it is to be.
    is_network_seen: bool = False
    #: Whether it still lets through what is connected.
    is_network_ajar: bool = False
    #: Leaves the tree's network namespace, while we are in it.
    visit: ExitStack = field(default_factory=ExitStack)

    @property
    def tree(self) -> FrozenTree:
        """The tree, which must have been stopped."""
        assert self.stopped is not None
        return self.stopped

    @property
    def outside(self) -> Outside:
        """What the dump changes outside of the tree."""
        return self.context.outside

    @property
    def alive(self) -> list[DumpProcess]:
        """All processes but the zombies."""
        return [process for process in self.processes if not process.is_zombie]


def begin(
    pid: Pid, new: NewSet | StoreSet, options: DumpOptions, hold: ExitStack, *, is_pre_dump: bool = False
) -> DumpSession:
    """A dump of *pid* into *new*, of which nothing has been done yet."""
    first: Callable[[str], BinaryIO] | None = None
    both: BothStore | None = None
    here: LateStore | None = None
    if options.also is not None:
        from torpor.images.stores.both import BothStore

        here = None if options.leave_running else LateStore(new.store)
        new.store = both = BothStore(here or new.store, options.also)
        # Whoever has memory ready for a restore before all is there can put the pages of a pre-dump there as they come.
        first = both.tell if is_pre_dump else None
    late = LateStore(new.store) if options.leave_running and options.notify is nobody else None
    store: ImageStore = late or new.store
    # Of what a pre-dump finds behind mappings no image is wanted: what is kept back is dropped.
    context = DumpContext(LateStore(new.store) if is_pre_dump else store, options.policies)
    context.files = FileDump(context, kinds_alike)
    pages = context.part(DumpedPages)
    pages.sink, pages.server = options.pages or StoreSink(store, PAGE_SIZE, first=first), options.pages
    new.has_pages = options.pages is None
    session = DumpSession(pid, new, options, hold, late, store, context, is_pre_dump)
    session.both, session.here = both, here
    context.outside.run_id = new.ident
    context.number_of_namespace = session.ids.namespace
    context.processes = session.processes
    session.root_ids.MergeFrom(m.task_kobj_ids_entry(vm_id=1, files_id=1, fs_id=1, sighand_id=1))
    session.ids.namespaces_of("self", session.root_ids)
    return session
