"""The order of a dump: the one place where it stands, each phase with the reason why it stands there.

A phase works on the whole tree.  Whoever adds a kernel object that must come before or after another adds a line here;
the work itself is in the modules beside, or in ``objects``.  What else is done with a stopped tree is another table of
the same steps.
"""

from __future__ import annotations

from collections.abc import Callable

from torpor.base.records import dataclass
from torpor.base.typed import IntEnum
from torpor.engine.dump import asking, collecting, ending, memory, preparing, reading, stopping, tracking, writing
from torpor.engine.dump.session import DumpSession
from torpor.objects.session import DumpStage


class Stage(IntEnum):
    """When a phase is gone through.  What a stage begins and ends with is in :mod:`torpor.engine.dump.run`."""

    BEFORE = 1
    """The tree runs: what takes time, and what can refuse, is done here."""
    FROZEN = 2
    """All of it is stopped, and nothing is imported; the time that is counted."""
    AFTER = 3
    """It has ended, or goes on: what can wait is done here."""
    LAST = 4
    """The same, and whether the dump has failed or not: each of these is done whatever becomes of the others."""


@dataclass(frozen=True, slots=True)
class DumpPhase:
    """A step of the dump."""

    name: str
    run: Callable[[DumpSession], None]
    why: str
    stage: int
    breaks: bool | None = None
    """Whether a signal may break it off in its midst; None: where the tree runs.

    Steps on a stopped tree are short, and whole, but for those that copy or wait: what they have begun to change must
    be known to who changes it back.
    """


class Reached:
    """A step of the dump: what objects have left for a stage is done."""

    def __init__(self, stage: DumpStage) -> None:
        self.stage = stage

    def __call__(self, session: DumpSession) -> None:
        """Do what objects have left for the stage."""
        session.context.reach(self.stage)


BEFORE, FROZEN, AFTER, LAST = Stage.BEFORE, Stage.FROZEN, Stage.AFTER, Stage.LAST

_CLOSED = Reached(DumpStage.CLOSED)

DUMP: tuple[DumpPhase, ...] = (
    DumpPhase("entered", preparing.find_entered, "who is carried besides is looked at with the tree", BEFORE),
    DumpPhase("preflight", preparing.check, "what cannot be carried is named before anything is done", BEFORE),
    DumpPhase("namespaces", preparing.look_at_namespaces, "what dumps them is imported, and may refuse", BEFORE),
    DumpPhase("warm up", preparing.warm_up, "what every dump needs is made while it costs nobody anything", BEFORE),
    DumpPhase("holes", memory.plan_holes, "imports what finds them, where the kernel has no quick way", BEFORE),
    DumpPhase("caretaker", preparing.fork_caretaker, "a fork; the checks know whether there is work for it", BEFORE),
    DumpPhase("control groups", preparing.read_cgroups, "of the root, and all below; it takes its time", BEFORE),
    DumpPhase("freezer", stopping.find_freezer, "its state is noted in the control groups that have been read", BEFORE),
    DumpPhase(
        "once more", preparing.once_more, "all of the above has taken its time, and the tree has written", BEFORE
    ),
    DumpPhase("writes", tracking.find, "who knows what was written is asked, and images before are read", BEFORE),
    DumpPhase("snapshots", memory.plan_snapshots, "imports what takes them, if none has kept track of writes", BEFORE),
    DumpPhase("processor", preparing.read_processor, "the same whatever the tree does", BEFORE),
    DumpPhase("pre-dump", preparing.notify, "the last word of a hook while all run", BEFORE),
    DumpPhase("flags of mappings", collecting.look_before, "as late as can be: they have no time to change", BEFORE),
    DumpPhase("stop", stopping.stop, "last of all that happens while it runs", BEFORE, breaks=False),
    DumpPhase("root", stopping.check_root, "of a dead one there is nothing to be read", FROZEN),
    DumpPhase("collect", collecting.collect, "everything else goes by processes and threads", FROZEN),
    DumpPhase("relieve", collecting.relieve, "before we change anything in addition to an earlier dump", FROZEN),
    DumpPhase("check", collecting.check, "what must be refused is, before anything is changed", FROZEN),
    DumpPhase("id maps", collecting.read_idmaps, "all that reads owners needs them", FROZEN),
    DumpPhase("network lock", reading.lock_network, "before sockets are looked at, whose queues would change", FROZEN),
    DumpPhase("enter network", reading.enter_network, "tables of sockets are those of the reader's", FROZEN),
    DumpPhase("groups of tasks", reading.ask_cgroups, "all are known, and stay where they are", FROZEN),
    DumpPhase("filters", reading.read_filters, "by ptrace, while no thread has been borrowed", FROZEN),
    DumpPhase("noted writes", tracking.follow, "what of mappings' flags is ours is known then", FROZEN),
    DumpPhase("mappings", memory.read_mappings, "whether pages are anybody's is known by what is mapped", FROZEN),
    DumpPhase("descriptors", reading.read_files, "may have questions for the tasks", FROZEN),
    DumpPhase("file locks", reading.read_locks, "each is seen with a descriptor", FROZEN),
    DumpPhase("known", Reached(DumpStage.KNOWN), "what refuses comes before what is asked and copied", FROZEN),
    DumpPhase("page tables", memory.scan, "before anything runs inside, which touches pages", FROZEN),
    DumpPhase("ask", asking.ask, "every question is known by now", FROZEN),
    DumpPhase("memory", memory.copy, "as the tasks had it: whatever ran inside has put it back", FROZEN, breaks=True),
    DumpPhase(
        "namespaces' contents", reading.read_namespaces, "descriptors and mounts name what is in", FROZEN, breaks=True
    ),
    DumpPhase(
        "segments", memory.copy_segments, "mappings, descriptors and namespaces have named all", FROZEN, breaks=True
    ),
    DumpPhase("complete", Reached(DumpStage.COMPLETE), "the last to refuse for what has not been met", FROZEN),
    DumpPhase("written", Reached(DumpStage.WRITTEN), "what is changed to be read is so for as short as can be", FROZEN),
    DumpPhase(
        "pages", memory.settle, "of pages that are not where they should be there are no images", FROZEN, breaks=True
    ),
    DumpPhase(
        "images", writing.write_before_end, "nothing is added any more, the inventory is the last", FROZEN, breaks=True
    ),
    DumpPhase("leave network", reading.leave_network, "hooks and the set find us at home", FROZEN),
    DumpPhase("look for entered", collecting.look_for_entered, "the set is not in place yet: nothing is lost", FROZEN),
    DumpPhase("place", writing.show, "a hook may look at the images", FROZEN, breaks=True),
    DumpPhase("post-dump", writing.notify, "a hook that says no can still keep the tree alive", FROZEN, breaks=True),
    DumpPhase("look once more", collecting.look_after_hook, "hooks start processes", FROZEN),
    DumpPhase("seal", writing.seal_before_end, "who rebuilds it elsewhere has all, and goes on while we do", FROZEN),
    DumpPhase("flags, again", collecting.look_again, "it takes its time: meanwhile; nothing counts yet", FROZEN),
    DumpPhase("commit", writing.commit_before_end, "what is noted of a dump is true whenever we die", FROZEN),
    DumpPhase(
        "give pages", ending.give_pages, "of what has been written, all that is missing are these", FROZEN, breaks=True
    ),
    DumpPhase("watch", memory.watch_snapshots, "as soon as it runs, the tree can use up the memory", FROZEN),
    DumpPhase("let go", ending.let_go, "all is written: there is no way back", FROZEN),
    DumpPhase("snapshots' memory", memory.copy_snapshots, "first: each write of the tree costs it a copy", AFTER),
    DumpPhase("images, running", writing.write_late, "what was read is made into images while nobody waits", AFTER),
    DumpPhase("inventory", writing.write_inventory, "last of the images: where it is, they are", AFTER),
    DumpPhase("flush", writing.flush, "what was kept back is written while nobody waits", AFTER),
    DumpPhase("post-dump, running", writing.notify_late, "all is there", AFTER),
    DumpPhase("commit, running", writing.commit_after, "the set is whole only now", AFTER),
    DumpPhase("follow writes", tracking.hand_over, "only of a whole set it can be said what is newer", AFTER),
    DumpPhase("snapshots' end", memory.end_snapshots, "they are no longer than they are needed", LAST),
    DumpPhase("closed", _CLOSED, "nobody waits for it, unless that is somebody who is told of a failure", LAST),
    DumpPhase("dismiss", ending.dismiss, "until here a caretaker may have had something to do", LAST),
)

#: The memory of a tree that runs on, for a dump that comes later and need not copy what is there already.
PRE_DUMP: tuple[DumpPhase, ...] = (
    DumpPhase("entered", preparing.find_entered, "who is going to be carried besides has memory too", BEFORE),
    DumpPhase("preflight", preparing.check, "for a tree that cannot be dumped it would be in vain", BEFORE),
    DumpPhase("writes", tracking.find, "who knows what was written is asked, and images before are read", BEFORE),
    DumpPhase("warm up", preparing.warm_up, "what every dump needs is made while it costs nobody anything", BEFORE),
    DumpPhase("holes", memory.plan_holes, "imports what finds them, where the kernel has no quick way", BEFORE),
    DumpPhase("freezer", stopping.find_freezer, "it is what stops the tree, if it is named", BEFORE),
    DumpPhase("flags of mappings", collecting.look_before, "as late as can be: they have no time to change", BEFORE),
    DumpPhase("stop", stopping.stop, "last of all that happens while it runs", BEFORE, breaks=False),
    DumpPhase("root", stopping.check_root, "of a dead one there is nothing to be read", FROZEN),
    DumpPhase("collect", collecting.collect, "everything else goes by processes", FROZEN),
    DumpPhase("id maps", collecting.read_idmaps, "files that are mapped have owners", FROZEN),
    DumpPhase("noted writes", tracking.follow, "what of mappings' flags is ours is known then", FROZEN),
    DumpPhase("mappings", memory.read_mappings, "whether pages are anybody's is known by what is mapped", FROZEN),
    DumpPhase("page tables", memory.scan, "they say which pages there are; what is written later is noted", FROZEN),
    DumpPhase("let go", ending.let_go, "the rest needs nobody to be stopped", FROZEN),
    DumpPhase("memory", memory.copy, "what changes meanwhile is copied again by who comes next", AFTER),
    DumpPhase("segments", memory.copy_segments, "the mappings have named those that are mapped", AFTER),
    DumpPhase("pages", memory.settle, "of pages that are not where they should be there are no images", AFTER),
    DumpPhase("inventory", writing.write_inventory, "last of the images: where it is, they are", AFTER),
    DumpPhase("flush", writing.flush, "what was kept back is written while nobody waits", AFTER),
    DumpPhase("commit, running", writing.commit_after, "the set is whole only now", AFTER),
    DumpPhase("follow writes", tracking.hand_over, "only of a whole set it can be said what is newer", AFTER),
    DumpPhase("closed", _CLOSED, "nobody waits for it, unless that is somebody who is told of a failure", LAST),
    DumpPhase("dismiss", ending.dismiss, "until here a caretaker may have had something to do", LAST),
)
