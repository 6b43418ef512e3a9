"""What all objects of one dump, or of one restore, share: where images go, what is allowed, who is dumped or made.

Open files are a part of it, :mod:`torpor.objects.files.model`; an object that has nothing to do with them needs only
what is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

from torpor.base.errors import RefusedError, RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.typed import TYPE_CHECKING, Self, TypeVar, cast
from torpor.images.store import ImageStore, ImageWriter
from torpor.kernel.idmap import IDENTITY
from torpor.objects.model import DumpProcess, RestoreProcess
from torpor.objects.outside import Outside
from torpor.tracee.remote import Runner

if TYPE_CHECKING:
    from torpor.objects.files.model import FileDump, FilePolicy, FileRestore

PartT = TypeVar("PartT")


class DumpContext:
    """Of one dump."""

    files: FileDump

    def __init__(self, store: ImageStore, policy: FilePolicy) -> None:
        self.store = store
        self.policy = policy
        self.processes: list[DumpProcess] = []
        self.outside = Outside()
        #: The number in the images of a namespace, by its name below /proc/PID/ns and what that link says.
        self.number_of_namespace: Callable[[str, str], int] = lambda name, link: 0
        #: Namespaces that no process is in, by their CLONE_NEW* flag and their number.
        self.held: dict[tuple[int, int], OwnedFd] = {}
        self._images: dict[str, ImageWriter] = {}
        self._seen: set[object] = set()
        self._parts: dict[type, object] = {}
        self._at_check: list[Callable[[], None]] = []
        self._at_end: list[Callable[[], None]] = []
        self._undo: list[tuple[Callable[[], None], bool]] = []

    def part(self, kind: Callable[[DumpContext], PartT]) -> PartT:
        """What the objects of one subpackage share during this dump: one *kind*, made when first asked for."""
        assert isinstance(kind, type)
        if kind not in self._parts:
            self._parts[kind] = kind(self)
        return cast(PartT, self._parts[kind])

    def once(self, key: object) -> bool:
        """True the first time it is asked about *key* (the object behind several descriptions)."""
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def image(self, kind: str) -> ImageWriter:
        """The image *kind* (one per dump, such as PIPES_DATA), to which objects add entries."""
        if kind not in self._images:
            self._images[kind] = ImageWriter(self.store, kind)
        return self._images[kind]

    def lose(self, text: str) -> None:
        """A check says what is going to be lost."""
        if text not in self.outside.losses:
            self.outside.losses.append(text)

    def at_check(self, action: Callable[[], None]) -> None:
        """Do *action*, which may refuse and does nothing else, once all descriptors of all processes are known."""
        self._at_check.append(action)

    def finish_checks(self) -> Iterator[RefusedError]:
        """Do what was left for ``at_check``; the refusals."""
        for action in self._at_check:
            try:
                action()
            except RefusedError as error:
                yield error

    def at_end(self, action: Callable[[], None]) -> None:
        """Do *action* once all descriptors of all processes are dumped; it may refuse."""
        self._at_end.append(action)

    def on_undo(self, action: Callable[[], None], *, also_stopped: bool = False) -> None:
        """Do *action*, which takes back a change, if the dump fails or leaves the tree running.

        *also_stopped*: or leaves it stopped, which is otherwise taken for an end that is to come.
        """
        self._undo.append((action, also_stopped))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """A dump that fails leaves nothing outside of the tree."""
        if error is not None:
            self.outside.fail()
            self.undo()
        self.outside.close()

    def undo(self, *, stopped: bool = False) -> None:
        """Take back what was changed, for a tree that goes on or is left *stopped*."""
        while self._undo:
            action, also_stopped = self._undo.pop()
            if also_stopped or not stopped:
                action()

    def close(self) -> None:
        """Do what was left for when all descriptors are known; write files.img, and what objects asked for."""
        for refusal in self.finish_checks():
            raise refusal
        for action in self._at_end:
            action()
        self.files.write()
        for image in self._images.values():
            image.close()


def _lend_nothing(_: Runner, fds: Sequence[int]) -> list[int]:
    raise RestoreError(f"no way for {len(fds)} descriptors into a puppet")


class RestoreContext:
    """Of one restore."""

    files: FileRestore

    def __init__(self, store: ImageStore, policy: FilePolicy) -> None:
        self.store = store
        self.policy = policy
        self.processes: list[RestoreProcess] = []
        #: Puts descriptors of ours into a puppet, whatever it has; their numbers there, which the caller closes.
        self.lend: Callable[[Runner, Sequence[int]], list[int]] = _lend_nothing
        #: Of the tree's user namespace: images hold ids as they are inside.
        self.idmaps = IDENTITY
        #: Network namespaces of the tree other than the main one, by their number.
        self.networks: dict[int, int] = {}
        #: Takes the master of a terminal that was driven from outside of the tree; it is borrowed for the call.
        self.orphan_master: Callable[[int], None] | None = None
        self._parts: dict[type, object] = {}
        self._before_attach: list[Callable[[], None]] = []
        self._at_end: dict[object, Callable[[], None]] = {}
        self._on_close: list[Callable[[], None]] = []
        self._when_connected: list[Callable[[], None]] = []

    def part(self, kind: Callable[[RestoreContext], PartT]) -> PartT:
        """What the objects of one subpackage share during this restore: one *kind*, made when first asked for."""
        assert isinstance(kind, type)
        if kind not in self._parts:
            self._parts[kind] = kind(self)
        return cast(PartT, self._parts[kind])

    def keep(self, fd: int) -> OwnedFd:
        """Close *fd* at the very end, however the restore ends; for actions at the end."""
        owned = OwnedFd(fd)
        self.on_close(owned.close)
        return owned

    def before_attach(self, action: Callable[[], None]) -> None:
        """Do *action* when all descriptors are in place, before any kind's ``attach``."""
        self._before_attach.append(action)

    def attach_all(self) -> None:
        """The last step of each kind of file, once all descriptors are in place."""
        for action in self._before_attach:
            action()
        self.files.attach_all()

    def when_connected(self, action: Callable[[], None]) -> None:
        """Do *action* when the network is unlocked, as the last thing before the tree goes on."""
        self._when_connected.append(action)

    def connect(self) -> None:
        """The network is unlocked: connections go on."""
        for action in self._when_connected:
            action()

    def at_end(self, key: object, action: Callable[[], None]) -> None:
        """Do *action*, once for each *key*, when the restore has succeeded."""
        self._at_end[key] = action

    def finish(self) -> None:
        """The restore has succeeded: do what was left for that."""
        for action in self._at_end.values():
            action()

    def on_close(self, action: Callable[[], None]) -> None:
        """Do *action* at the end of the restore, however it ends."""
        self._on_close.append(action)

    def release(self) -> None:
        """Let go our copies: an end that nobody else has must be seen to be closed when the tree runs."""
        self.files.release()
        self._parts.clear()

    def close(self) -> None:
        """Close all."""
        for action in self._on_close:
            action()
        self.files.close()
        self._parts.clear()
