"""The state of one restore in progress, which the phases read and add to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from torpor.base.fds import OwnedFd
from torpor.base.records import dataclass, field
from torpor.base.typed import TYPE_CHECKING
from torpor.engine.options import RestoreOptions
from torpor.engine.stats import RestoreStats
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import ImageStore
from torpor.kernel import idmap
from torpor.kernel.idmap import IDENTITY, IdMaps
from torpor.kernel.namespaces import CLONE_NEWCGROUP, CLONE_NEWNET, setns
from torpor.objects.cgroup.model import IGNORE
from torpor.objects.model import RestoreProcess, RestoreThread
from torpor.objects.session import RestoreContext, RestoreStage
from torpor.objects.undo import Action, End, do_all
from torpor.tracee.guardian import Guardian
from torpor.tracee.puppet import Channel
from torpor.tracee.remote import Runner, kill_and_reap
from torpor.tracee.stub import ParkedVdso

if TYPE_CHECKING:
    from torpor.engine.restore.cgroups import CgroupRestore


@dataclass(frozen=True, slots=True)
class Joined:
    """A namespace made by others that the tree is restored into, and its CLONE_NEW* flag."""

    fd: OwnedFd
    flag: int


if TYPE_CHECKING:
    from torpor.objects.files.socket.net_lock import Left, NetLock
    from torpor.tracee.caretaker import Caretaker, Step


@dataclass(slots=True)
class RestoreSession:
    """What is known and made so far.

    From the phase "images" on: ``root``, ``everyone`` (parents before children), ``descriptors`` (of each table).
    From the phase "plan" on: ``area`` (where our memory lies in every puppet), ``channel``, ``context``.
    From the phase "root puppet" on: ``vdso`` and the runners.
    """

    store: ImageStore
    options: RestoreOptions
    stats: RestoreStats = field(default_factory=RestoreStats)
    everyone: list[RestoreProcess] = field(default_factory=list)
    descriptors: dict[int, list[m.fdinfo_entry]] = field(default_factory=dict)
    area: int = 0
    #: From the phase "security labels" on: what labels become.
    new_labels: dict[str, str] = field(default_factory=dict)
    vdso: ParkedVdso = field(default_factory=lambda: ParkedVdso(()))
    #: What kills all puppets if we die between letting the first and the last of them go.
    guardian: Guardian | None = None
    #: CLONE_NEW* flags with which the root puppet is cloned: set by what needs namespaces, before it is.
    root_clone_flags: int = 0
    #: Namespaces of others that the root puppet joins: set likewise.
    joined: list[Joined] = field(default_factory=list)
    #: Whether the stub is to make a time namespace for the root puppet.
    new_time: bool = False
    #: Under which id the images have the clocks that it goes on with.
    time_ident: int = 0
    #: Of the tree's user namespace: images hold ids as they are inside.
    idmaps: IdMaps = IDENTITY
    #: Whether supplementary groups may be changed in it.
    allows_setgroups: bool = True
    #: Whether what we make belongs to whoever is in charge of the tree's user namespace.
    owns_for_tree: bool = False
    #: Whether the root puppet is to make a cgroup namespace for itself, which it does where its roots are to be.
    new_cgroup_ns: bool = False
    #: What is made and entered of control groups, if any are managed.
    cgroups: CgroupRestore | None = None
    #: Our own network namespace, while we are in the tree's.
    network: OwnedFd | None = None
    #: What we ourselves have locked, and who unlocks it if we die.
    held: NetLock | None = None
    caretaker: Caretaker | None = None
    is_unlocked: bool = False
    #: What the dump has locked.
    left: Left | None = None
    #: Under what the caretaker knows how to end the tree, and what is taken back if it does not go on.
    ending: list[int] = field(default_factory=list)
    taken_back: list[int] = field(default_factory=list)
    #: Where processes are in different ones, all namespaces of that kind: (CLONE_NEW* flag, id) -> descriptor.
    nested: dict[tuple[int, int], OwnedFd] = field(default_factory=dict)
    #: What lasts, once there is no way back, until all is said and done.
    hold: ExitStack = field(default_factory=ExitStack)
    #: Every traced task that exists: killed if the restore fails.
    live: list[Runner] = field(default_factory=list)
    _channel: Channel | None = None
    _context: RestoreContext | None = None

    @property
    def root(self) -> RestoreProcess:
        """The process that all others of the tree are below, once the images have been read."""
        return self.everyone[0]

    @property
    def alive(self) -> list[RestoreProcess]:
        """All processes but the zombies, parents before children."""
        return [process for process in self.everyone if not process.is_zombie]

    @property
    def namespaces(self) -> int:
        """CLONE_NEW* flags of all namespaces in which the tree is and we are not."""
        made = self.root_clone_flags | (CLONE_NEWCGROUP if self.new_cgroup_ns else 0)
        return made | sum(joined.flag for joined in self.joined)

    def iter_owners(self, kind: str) -> Iterator[RestoreProcess]:
        """One living process for each table of that kind (``files_id``, ...): the first of those that share it."""
        seen: set[int] = set()
        for process in self.alive:
            number = getattr(process.ids, kind)
            if number not in seen:
                seen.add(number)
                yield process

    def iter_threads(self) -> Iterator[RestoreThread]:
        """All threads of all living processes."""
        for process in self.alive:
            yield from process.threads

    @property
    def has_cgroups(self) -> bool:
        """Whether there is anything to be done about control groups."""
        managed = self.options.cgroups.mode != IGNORE and self.store.exists(kinds.CGROUP.file_name())
        return managed or self.new_cgroup_ns

    @property
    def channel(self) -> Channel:
        """The way by which descriptors get into puppets."""
        assert self._channel is not None
        return self._channel

    @property
    def context(self) -> RestoreContext:
        """What objects share, with the open file descriptions."""
        assert self._context is not None
        return self._context

    def plan(self, channel: Channel, context: RestoreContext) -> None:
        """Take over what the phase "plan" made; ``close`` closes it."""
        self._channel, self._context = channel, context

    def reach(self, stage: RestoreStage) -> None:
        """Do what objects have left for *stage*."""
        if self._context is not None:
            self._context.reach(stage)

    def fail(self, error: BaseException) -> None:
        """Kill all that was made, because of *error*, and take back what was changed."""
        actions: list[Action] = [lambda: kill_and_reap([runner.thread for runner in self.live])]
        if self.cgroups is not None:
            actions.append(self.cgroups.maker.undo)
        do_all(actions, error)
        if self._context is not None:
            self._context.undo.undo(End.FAILED, error)

    def get_caretaker(self) -> Caretaker:
        """Who sees to what is outside of the tree if the restore fails or we die; made when first asked for."""
        if self.caretaker is None:
            from torpor.tracee import caretaker

            self.caretaker = caretaker.Caretaker()
        return self.caretaker

    def take_back(self, steps: Sequence[Step]) -> None:
        """Have a caretaker do *steps*, in that order, if the tree does not go on."""
        self.taken_back += self.get_caretaker().add(steps)

    def leave_network(self) -> None:
        """Go back into our own network namespace, if we have left it."""
        if self.network is not None:
            with self.network as ours:
                setns(ours.fileno(), CLONE_NEWNET)
            self.network = None

    def own_new_files(self, user: int = -1, group: int = -1) -> None:
        """Have all that we make from now on belong to *user* and *group*, or to ourselves again."""
        if user == -1 and not self.owns_for_tree:
            return
        self.owns_for_tree = user != -1
        idmap.set_owner_of_new_files(user if user != -1 else os.geteuid(), group if group != -1 else os.getegid())

    def unlock(self) -> None:
        """Let go what we, and the dump, have locked of the network."""
        if self.held is not None:
            self.held.let_through()
        if self.left is not None:
            self.left.let_through()
        self.is_unlocked = True

    def close(self) -> None:
        """Close what is ours; what the restored processes have stays theirs."""
        self.leave_network()
        self.own_new_files()
        if self.is_unlocked and self.held is not None:
            self.held.close()
        if self.caretaker is not None:
            if self.is_unlocked:
                self.caretaker.dismiss()
            else:
                self.caretaker.relieve()
        if self.left is not None:
            self.left.close()
        for joined in self.joined:
            joined.fd.close()
        if self.cgroups is not None:
            self.cgroups.maker.close()
            self.cgroups.yard.close()
        for fd in self.nested.values():
            fd.close()
        if self.guardian is not None:
            self.guardian.bury()
        if self._context is not None:
            self._context.files.close()
        if self._channel is not None:
            self._channel.close()
