"""What the kinds of namespaces share: their shape, and what they are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torpor.base.ids import Pid
from torpor.base.records import dataclass, field
from torpor.base.typed import Literal
from torpor.images.store import ImageStore
from torpor.kernel.idmap import IDENTITY, IdMaps
from torpor.objects.memory.segments import SegmentDump
from torpor.objects.policy import Policies
from torpor.objects.session import DumpContext, RestoreContext
from torpor.tracee.remote import Runner

IdField = Literal[
    "pid_ns_id", "net_ns_id", "ipc_ns_id", "uts_ns_id", "mnt_ns_id", "user_ns_id", "cgroup_ns_id", "time_ns_id"
]


@dataclass(frozen=True, slots=True)
class NsDump:
    """A namespace being dumped: of the stopped process behind *pidfd*, under the image id *ident*."""

    store: ImageStore
    segments: SegmentDump
    pid: Pid
    pidfd: int
    ident: int
    #: ``--external`` as given: ``mnt[/path]:key`` and the like.
    external: tuple[str, ...] = ()
    #: Of the tree's user namespace: images hold ids as they are inside.
    idmaps: IdMaps = IDENTITY
    #: What the objects of this dump share, and what the user allows.
    context: DumpContext | None = None


@dataclass(frozen=True, slots=True)
class NsRestore:
    """A namespace being restored: one that the root puppet was cloned with, or a nested one, of other processes.

    ``flags`` are all that the root puppet was cloned with.  ``where`` is what setns(2) takes to get into this one: the
    root puppet's pidfd, or the nested namespace's own descriptor.  ``root`` is the directory that becomes the root of
    a mount namespace.
    """

    store: ImageStore
    runner: Runner
    pidfd: int
    ident: int
    flags: int
    root: str = "/"
    external: tuple[str, ...] = field(default=())
    #: Of the tree's user namespace: images hold ids as they are inside.
    idmaps: IdMaps = IDENTITY
    where: int = -1
    is_nested: bool = False
    #: Where names of files are to be looked up is told to it.
    context: RestoreContext | None = None

    @property
    def label(self) -> str:
        """The security label that file systems get in place of theirs; empty: they keep it."""
        return self.context.policies.mounts.lsm_mount_context if self.context is not None else ""

    @property
    def pid(self) -> int:
        """The root puppet's, as we see it."""
        return self.runner.tid


@dataclass(frozen=True, slots=True)
class NsKind:
    """A kind of namespace.

    ``id_field`` is its id in ``task_kobj_ids_entry``, ``link`` its name in /proc/PID/ns, ``clone_flag`` what makes one.
    Without ``dump`` and ``restore``, ``refusal`` says why a tree may not have one of its own.  With ``nests``, a
    process may be in another one than the tree's root.
    """

    id_field: IdField
    link: str
    clone_flag: int
    dump: Callable[[NsDump], None] | None = None
    restore: Callable[[NsRestore], None] | None = None
    finish: Callable[[NsRestore], None] | None = None
    """Once memory is in place."""
    restore_together: Callable[[Sequence[NsRestore]], None] | None = None
    """In place of ``restore``: all of this kind at once, the root's first."""
    in_images: Callable[[ImageStore], set[int]] | None = None
    """The numbers of those that the images have, whether a process is in them or not."""
    check: Callable[[int, Policies], None] | None = None
    """Before the freeze, with a process that is in it: refuses what ``dump`` would."""
    losses: Callable[[int, Policies], list[str]] | None = None
    """What of it ``dump`` would leave out, for whoever asks before."""
    connect: Callable[[NsRestore], None] | None = None
    """Once all sockets are there."""
    look_foreign: Callable[[DumpContext, Pid, int], None] | None = None
    """What is carried of one that whoever restores makes: before the freeze, with a process in it and its pidfd."""
    losses_foreign: Callable[[Pid, int], list[str]] | None = None
    dump_foreign: Callable[[NsDump], None] | None = None
    restore_foreign: Callable[[NsRestore], None] | None = None
    refusal: str | None = None
    nests: bool = False
