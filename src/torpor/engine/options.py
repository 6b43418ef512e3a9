"""What a dump or a restore may be told; the commands and the API fill these in, objects get only the part they need."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torpor.base.records import dataclass, field
from torpor.base.typed import TYPE_CHECKING, Any, Protocol
from torpor.objects.cgroup.model import CgroupPolicy
from torpor.objects.policy import FilePolicy, MountPolicy, NetworkPolicy, Policies, TerminalPolicy

if TYPE_CHECKING:
    from torpor.engine.restore.ahead import Ahead
    from torpor.engine.restore.template import Template
    from torpor.images.pages import PageServer
    from torpor.images.store import ImageStore
    from torpor.objects.memory.later import Later
    from torpor.objects.memory.tracking import Tracker
    from torpor.tracee.guardian import Guardian

#: What becomes of processes that entered a pid namespace of the tree's from outside (``podman exec``): the dump is
#: refused; they are dumped as children of its first process; they are left out, and end when that does.
REFUSE, CARRY, LEAVE_OUT = "refuse", "carry", "leave-out"
#: Whether memory is copied from a snapshot where the tree runs on: where that is worth it and can be had, of each
#: process where it can be had, of none.
AUTO, ALWAYS, NEVER = "auto", "always", "never"
#: Called at each stage with its name, as criu(8) has them for action scripts, and the root's pid (0: none yet).
#: Whoever is called says no by an exception, and the work ends as after any other error.
Notify = Callable[[str, int], None]
#: Reads pages that a dump has not copied: of a process by its pid in the tree, from an address on, at most so many
#: bytes.
ReadPages = Callable[[int, int, int], memoryview]


class Remaining(Protocol):
    """What a dump has not copied of the tree, which stays stopped; good for as long as the call that it is given to."""

    def read(self, ident: int, start: int, n_bytes: int, /) -> memoryview:
        """As ``ReadPages``; good until the next call.  TorporError for what is not left."""

    def never_again(self) -> None:
        """From now on our death is the tree's: somebody is going to say elsewhere that it may run there."""

    def complete(self) -> None:
        """Have all that is left in the set of images, which is whole by itself then, and on the disk.

        StoreError, OSError, and what ``read`` raises: the set is as it was.
        """


Give = Callable[[Remaining], None]


def nobody(action: str, pid: int) -> None:
    """The notifier for when nobody wants to know."""


def nothing(directory: str) -> None:
    """What is done when nothing is to be done."""


def no_more() -> None:
    """What is copied once more, where nothing is."""


def policies_of(told: Mapping[str, Mapping[str, Any]]) -> Policies:
    """Those that a face has been told, by :mod:`torpor.engine.option_table`: policy, its field, the value."""
    return Policies(
        files=FilePolicy(**told["files"]),
        network=NetworkPolicy(**told["network"]),
        mounts=MountPolicy(**told["mounts"]),
        terminals=TerminalPolicy(**told["terminals"]),
        **told["policies"],
    )


@dataclass(frozen=True, slots=True)
class JoinNs:
    """``--join-ns KIND:PATH[,EXTRA]``; PATH may be the pid of a process that is in the namespace."""

    kind: str
    path: str
    extra: str = ""


@dataclass(frozen=True, slots=True)
class RestorePolicy:
    """What images may ask for beyond what the kernel refuses us anyway.

    As it stands it is CRIU's: whoever restores trusts the images as far as options do not say otherwise (external
    mounts and types of file systems have options of their own).  ``capabilities``: a mask of those that restored tasks
    may have; None: as ours.  ``labels``: security labels other than ours.  ``devices``: consoles and serial lines.
    ``machine``: file systems that change the whole machine, such as binfmt_misc.  ``precedence``: to be scheduled
    before others, or spared when memory ends, beyond what we have ourselves.  (``FilePolicy.special_files``: set-uid
    files and devices that are made from what images say.)
    """

    capabilities: int | None = None
    labels: bool = True
    devices: bool = True
    machine: bool = True
    precedence: bool = True


#: For images that somebody else may have made: those of ``torpor restore PATH`` without ``--trust``.
STRANGERS = RestorePolicy(labels=False, devices=False, machine=False, precedence=False)


@dataclass(frozen=True, slots=True)
class DumpOptions:
    """``leave_running`` and ``leave_stopped`` say what becomes of the tree; without either it is killed.

    ``timeout_s``: how long stopping the tree may take; 0 is for ever.  ``stats_directory``: where stats-dump goes, if
    not to the images.  ``commit`` is called, with a path by which the set of images can be read just now, when that
    is whole: before the tree is killed, if it is, so that what is noted of it is true whenever we die; an error there
    is an error of the dump.  ``notes``: small files that belong into the set, names and contents.
    ``made_by``: what the manifest says of who made the images.  ``entered``: REFUSE, CARRY or LEAVE_OUT.
    ``compress``: the pages are compressed as they are written.  ``snapshot``: AUTO, ALWAYS or NEVER.
    ``owns_directory``: the directory is ours, and replaced as a whole; where others' files are in it, only with
    ``force``, and then they stay.
    ``own_session``: a root that is in the session of a shell outside gets one of its own.
    ``also``: a store, which stays the caller's, that gets every image as well, and is whole before ``commit`` is
    called.  ``last_words``: what sockets get once the tree has been killed, or can only be: a caretaker sends them
    if we die then.  They may be sent twice.
    ``pages``: who takes the pages, and the page maps, instead of the set; he stays the caller's.
    ``give``: pages that can come after a restore are not copied; this is called when all else is in its place, with
    those that remain, and the tree is stopped until it returns, and ended then.
    ``once_more`` is called when all that can be has been looked at, and the tree is about to be stopped: what has been
    written meanwhile can go by one more pre-dump.  Nothing has been given to ``also`` before, nor looked for in
    ``parent``.
    ``parent``: the directory (from that of the images) of the set before this one: of what has not been written since,
    these images say that it is there.  ``track``: what is written from now on is noted for the dump after this one, by
    a process that keeps that until the tree ends, or by the caller's own ``tracker``, which knows the set before, too,
    so that ``parent`` is the business of whoever gives the store.  ``dedup``: what is copied again is taken out of the
    sets before, when this one is complete.  ``unsettled``: the set counts when the dump returns, but is not on the disk
    yet, and has no sums, as one whose dump was killed then (``settling.complete``).
    """

    made_by: str = ""
    compress: bool = False
    snapshot: str = NEVER
    owns_directory: bool = False
    force: bool = False
    leave_running: bool = False
    leave_stopped: bool = False
    timeout_s: int = 10
    entered: str = REFUSE
    own_session: bool = False
    parent: str = ""
    unsettled: bool = False
    dedup: bool = False
    track: bool = False
    tracker: Tracker | None = None
    stats_directory: str = ""
    notify: Notify = nobody
    commit: Callable[[str], None] = nothing
    notes: tuple[tuple[str, bytes], ...] = ()
    also: ImageStore | None = None
    last_words: tuple[tuple[int, bytes], ...] = ()
    pages: PageServer | None = None
    give: Give | None = None
    once_more: Callable[[], None] = no_more
    policies: Policies = field(default_factory=Policies)
    cgroups: CgroupPolicy = field(default_factory=CgroupPolicy)


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """What a restore may be told.

    ``verify``: images that are not as their manifest says are refused.
    ``sibling``: the restored root becomes a child of our parent.  ``leave_stopped``: it stays stopped.
    ``inherit_fds``: open descriptors of ours, each with the name of the file (``pipe:[123]``, a path) or the external
    namespace it stands for.  ``join_ns``: namespaces of others that the tree is put into.
    ``renames``: paths of files in the images, each with the path that is opened instead.
    ``new_network``: the tree gets a network namespace of its own, with nothing but a loopback interface.
    ``cpu_cap``: what of the processor must be as it was, in the words of criu(8); None: what programs need.
    ``lsm_profile``: the security label, ``apparmor:PROFILE`` or ``selinux:CONTEXT``, in place of those in the images.
    ``lsm_map``: labels in the images (or types of SELinux's), each with the one that takes its place.
    ``orphan_master`` gets the master, ours for the call, of a terminal that was driven from outside of the tree (with
    ``policies.terminals.orphan_pts_master``).
    ``guarded`` gets the guard over a tree with a pid namespace of its own: until that is dismissed, the tree runs, and
    our death ends it.  For a caller who has yet to tell somebody else of it, who would else make a second one.
    ``later``: brings pages that the images mark as lazy when the tree runs already; he stays the caller's.
    ``ahead``: has memory of the tree already; he stays the caller's, too.
    ``template``: what all restores that are given it share the memory of, if the images are the same; the caller's.
    """

    sibling: bool = False
    leave_stopped: bool = False
    stats_directory: str = ""
    notify: Notify = nobody
    verify: bool = True
    inherit_fds: tuple[tuple[int, str], ...] = ()
    join_ns: tuple[JoinNs, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    new_network: bool = False
    cpu_cap: str | None = None
    orphan_master: Callable[[int], None] | None = None
    guarded: Callable[[Guardian], None] | None = None
    later: Later | None = None
    ahead: Ahead | None = None
    template: Template | None = None
    lsm_profile: str = ""
    lsm_map: tuple[tuple[str, str], ...] = ()
    policies: Policies = field(default_factory=Policies)
    cgroups: CgroupPolicy = field(default_factory=CgroupPolicy)
    policy: RestorePolicy = field(default_factory=RestorePolicy)
