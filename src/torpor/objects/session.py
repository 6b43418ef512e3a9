"""What all objects of one dump, or of one restore, share: where images go, what is allowed, who is dumped or made.

Open files are a part of it, :mod:`torpor.objects.files.model`; an object that has nothing to do with them needs only
what is here.  What an object has to do later than when it is met it leaves for a stage.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType

from torpor.base.errors import RefusedError, RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.base.typed import TYPE_CHECKING, Any, Generic, IntEnum, Protocol, Self, TypeVar
from torpor.images.store import ImageStore, ImageWriter
from torpor.kernel.idmap import IDENTITY
from torpor.objects.model import DumpProcess, RestoreProcess
from torpor.objects.outside import Outside
from torpor.objects.policy import Policies
from torpor.objects.undo import Action, End, UndoStack, do_all
from torpor.tracee.remote import Runner

if TYPE_CHECKING:
    from torpor.objects.files.model import FileDump, FileRestore
    from torpor.objects.memory.later import Later
    from torpor.objects.memory.parked import Parked
    from torpor.objects.memory.template import Parking
    from torpor.tracee.caretaker import Step

PartT = TypeVar("PartT")
StageT = TypeVar("StageT", bound=int)


class DumpStage(IntEnum):
    """When something is done that was left by the objects of a dump: one phase of its table each.

    Within a stage there is no order that anybody may rely on.
    """

    KNOWN = 1
    """All descriptors of all processes are known, of a tree that runs too: what may refuse, and does nothing else."""
    COMPLETE = 2
    """Nothing is met any more, in namespaces and memory either: what still has to be found, or else refuses."""
    WRITTEN = 3
    """What may refuse has: contents that change when they are read, images that hold what all have in common."""
    CLOSED = 4
    """However the dump has ended, and the tree goes on if it does: what takes its time."""


class RestoreStage(IntEnum):
    """When something is done that was left by the objects of a restore: one phase of its table each.

    Within a stage there is no order that anybody may rely on.
    """

    QUEUED = 1
    """All descriptors are in place: queues are filled, for which files are opened that are nowhere else."""
    OPENED = 2
    """Every file is open: what would have been in the way of opening it (limits, seals, owners) is set."""
    NAMED = 3
    """No file is looked up by its name any more: what stood there for that is taken away."""
    TIDY = 4
    """The restore has succeeded but for letting go: what a dump has left in file systems goes."""
    WATCHED = 5
    """We change no file any more: those are watched from here on that the tree watched."""
    CONNECTED = 6
    """The tree is about to go on, and the network is still locked: connections are what they were."""
    UNLOCKED = 7
    """Packets come and go again: connections that have missed some go on."""
    CLOSED = 8
    """However the restore has ended: what is ours is closed."""


class Restless(Protocol):
    """Something through which things are on their way to the tree, which only it can take up."""

    def is_waited_for(self) -> bool:
        """Whether something is on its way now."""


class Promised(Protocol):
    """Something of a restore that a caretaker sees to if we die when the tree is about to go on."""

    def steps_if_ended(self) -> Sequence[Step]:
        """What it does when it has ended the tree, which can then be restored once more."""

    def steps_if_let_go(self) -> Sequence[Step]:
        """What it does when the tree goes on, and the network is unlocked."""


class Noticed:
    """What checks saw in a tree that runs."""

    def __init__(self) -> None:
        #: What needs preparation ("connections").
        self.marks: set[str] = set()
        self.restless: list[Restless] = []
        #: What will not be there any more after a restore.
        self.losses: list[str] = []
        #: The same of what a process would have undone when it ends (SEM_UNDO).
        self.undo: list[str] = []
        #: Where mappings begin that have a NUMA policy of their own.
        self.placed: dict[Pid, list[int]] = {}
        #: The ports at which a connection, were there one, would be refused; and those to which there was one.
        self.ports: set[int] = set()
        self.peer_ports: set[int] = set()
        #: The inodes of all sockets, and how many descriptors there are besides.
        self.sockets: set[int] = set()
        self.n_other_files = 0
        #: Threads that share with their process what the images have once for all of them.
        self.threads: set[Pid] = set()

    def is_restless(self) -> bool:
        """Whether stopping the tree now would catch something on its way."""
        return any(each.is_waited_for() for each in self.restless)

    def lose(self, text: str) -> None:
        """Something is going to be lost."""
        if text not in self.losses:
            self.losses.append(text)


class _Context(Generic[StageT]):
    """What dumps and restores have in common."""

    _last: StageT

    def __init__(self, store: ImageStore, policies: Policies) -> None:
        self.store = store
        self.policies = policies
        #: What has been changed and is taken back if it comes to nothing.
        self.undo = UndoStack()
        self._parts: dict[object, Any] = {}
        self._seen: set[object] = set()
        self._left: dict[int, deque[Action]] = {}

    def part(self, kind: Callable[[Self], PartT]) -> PartT:
        """What the objects of one subpackage share: one *kind*, made when first asked for."""
        found = self._parts.get(kind)
        if found is None:
            found = self._parts[kind] = kind(self)
        return found

    def once(self, key: object) -> bool:
        """True the first time it is asked about *key* (the object behind several descriptions)."""
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def at(self, stage: StageT, action: Action) -> None:
        """Leave *action* for that stage, or for what is left of it."""
        self._left.setdefault(stage, deque()).append(action)

    def take(self, stage: StageT) -> Iterator[Action]:
        """What was left for it, and what is while it lasts; each is to be done."""
        left = self._left.setdefault(stage, deque())
        while left:
            yield left.popleft()

    def reach(self, stage: StageT) -> None:
        """Do what was left for it: up to the first that fails, but all of it where this is how everything ends."""
        if stage == self._last:
            do_all(self.take(stage))
            return
        for action in self.take(stage):
            action()


class DumpContext(_Context[DumpStage]):
    """What the objects of one dump share: the images, the policies, the processes, what each has left for a stage."""

    files: FileDump
    _last = DumpStage.CLOSED

    def __init__(self, store: ImageStore, policies: Policies) -> None:
        super().__init__(store, policies)
        self.processes: list[DumpProcess] = []
        self.noticed = Noticed()
        self.outside = Outside()
        #: The number in the images of a namespace, by its name below /proc/PID/ns and what that link says.
        self.number_of_namespace: Callable[[str, str], int] = lambda name, link: 0
        #: Namespaces that no process is in, by their CLONE_NEW* flag and their number.
        self.held: dict[tuple[int, int], OwnedFd] = {}
        self._images: dict[str, ImageWriter] = {}

    def image(self, kind: str) -> ImageWriter:
        """The image *kind* (one per dump, such as PIPES_DATA), to which objects add entries."""
        if kind not in self._images:
            self._images[kind] = ImageWriter(self.store, kind)
        return self._images[kind]

    def refusals(self) -> Iterator[RefusedError]:
        """Those of the stage KNOWN, which this reaches."""
        for action in self.take(DumpStage.KNOWN):
            try:
                action()
            except RefusedError as error:
                yield error

    def write(self) -> None:
        """Nothing is added any more: write files.img, and the images that objects asked for."""
        self.files.write()
        for image in self._images.values():
            image.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """A dump that fails leaves nothing changed."""
        if error is not None:
            self.undo.undo(End.FAILED, error)


def _lend_nothing(_: Runner, fds: Sequence[int]) -> list[int]:
    raise RestoreError(f"no way for {len(fds)} descriptors into a puppet")


def _take_nothing_back(steps: Sequence[Step]) -> None:
    raise RestoreError(f"nobody to take back {len(steps)} changes")


class RestoreContext(_Context[RestoreStage]):
    """What the objects of one restore share: the images, the policies, the processes, the ways into puppets."""

    files: FileRestore
    _last = RestoreStage.CLOSED

    def __init__(self, store: ImageStore, policies: Policies) -> None:
        super().__init__(store, policies)
        self.processes: list[RestoreProcess] = []
        #: Puts descriptors of ours into a puppet, whatever it has; their numbers there, which the caller closes.
        self.lend: Callable[[Runner, Sequence[int]], list[int]] = _lend_nothing
        #: Has these steps done, in that order, if the tree does not go on, also if we die.
        self.take_back: Callable[[Sequence[Step]], None] = _take_nothing_back
        #: Of the tree's user namespace: images hold ids as they are inside.
        self.idmaps = IDENTITY
        #: Network namespaces of the tree other than the main one, by their number.
        self.networks: dict[int, int] = {}
        #: What security labels become; None: files are not given those of the images.
        self.new_labels: Mapping[str, str] | None = {}
        #: Takes the master of a terminal that was driven from outside of the tree; it is borrowed for the call.
        self.orphan_master: Callable[[int], None] | None = None
        #: Brings pages after the restore; None: all are there before.
        self.later: Later | None = None
        #: What of the root's memory is there before it.
        self.parked: Parked | None = None
        self.promised: list[Promised] = []
        #: How far the tree's monotonic clock is ahead of ours; None: it does not go on from where it was.
        self.clock_shift_ns: int | None = None
        #: What the template has whose clones the puppets are; None: there is none.
        self.parking: Parking | None = None

    def keep(self, fd: int) -> OwnedFd:
        """Close *fd* at the very end, however the restore ends; for what is left for a late stage."""
        owned = OwnedFd(fd)
        self.at(RestoreStage.CLOSED, owned.close)
        return owned

    def release(self) -> None:
        """Let go our copies: an end that nobody else has must be seen to be closed when the tree runs."""
        self.files.release()
        self._parts.clear()
