"""The records that all objects share: a process being dumped, a process being restored."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torpor.base.errors import TorporError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid, TreePid
from torpor.base.records import dataclass, field
from torpor.images import messages as m
from torpor.images.pages import Range
from torpor.kernel.idmap import IDENTITY, IdMaps
from torpor.kernel.procfs.maps import Vma
from torpor.kernel.procfs.stat import Stat
from torpor.kernel.procfs.status import Status, read_status
from torpor.tracee.batch import Batch, Result
from torpor.tracee.remote import Runner
from torpor.tracee.thread import Thread
from torpor.tracee.tree import Process


@dataclass(slots=True)
class DumpThread:
    """A stopped thread, what /proc says of it, and the core image being filled in."""

    process: DumpProcess
    thread: Thread
    ns_tid: TreePid
    status: Status
    core: m.core_entry

    @property
    def tid(self) -> Pid:
        """Its id as we see it."""
        return self.thread.tid

    @property
    def is_leader(self) -> bool:
        """Whether it is the main thread."""
        return self.thread.tid == self.thread.tgid


@dataclass(slots=True)
class DumpProcess:
    """A stopped process (or a zombie, which has no threads, no maps and no pidfd)."""

    tracee: Process
    parent: DumpProcess | None
    pid: Pid
    ns_pid: TreePid
    stat: Stat
    status: Status
    pidfd: OwnedFd | None
    core: m.core_entry
    mm: m.mm_entry
    ids: m.task_kobj_ids_entry
    maps: list[Vma] = field(default_factory=list)
    #: Mappings that a dump that was killed left in it.
    leftovers: list[Vma] = field(default_factory=list)
    threads: list[DumpThread] = field(default_factory=list)
    #: Of its user namespace: images hold ids as they are inside.
    idmaps: IdMaps = IDENTITY
    #: What its files have for its main thread to do, with the other questions to it.
    questions: list[Callable[[Batch], None]] = field(default_factory=list)
    #: Where there is something in its vast mappings, where the kernel does not tell that quickly and it has been asked.
    populated: list[Range] | None = None
    #: Limits that are others for now, as they were: soft and hard by number.
    limits: dict[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def is_zombie(self) -> bool:
        """Dead, waiting for its parent."""
        return self.tracee.is_zombie

    @property
    def pending(self) -> int:
        """The signals that wait for any of its threads, as a mask."""
        pending = 0
        for thread in self.threads:
            pending |= thread.status.pending
        return pending

    @property
    def has_entered(self) -> bool:
        """Whether it, or one that it is below, came from outside: another parent than in the images."""
        at: DumpProcess | None = self
        while at is not None and at.parent is not None:
            if at.parent.pid != at.stat.ppid:
                return True
            at = at.parent
        return False

    def describe(self) -> str:
        """The process for messages: ``pid 123 (postgres)``."""
        return f"pid {self.pid} ({self.stat.comm})"


@dataclass(slots=True)
class RestoreThread:
    """A thread as its core image says, and, once made, the runner by which it builds itself."""

    process: RestoreProcess
    core: m.core_entry
    ns_tid: TreePid
    made: Runner | None = None
    #: Its seccomp filters, oldest first; the first ``n_shared_filters`` are the same in all threads of the process.
    filters: list[m.seccomp_filter] = field(default_factory=list)
    n_shared_filters: int = 0
    #: Its own security label, "" for none, and those for what it makes, by their names in /proc/PID/attr.
    label: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    #: By the same names, the files that it has opened to set them (results of its batch), and what is to be written.
    attributes: dict[str, tuple[Result, str]] = field(default_factory=dict)
    _status: Status | None = None

    @property
    def runner(self) -> Runner:
        """Makes the thread's calls; TorporError before the thread is made."""
        if self.made is None:
            raise TorporError(f"thread {self.ns_tid} of pid {self.process.ns_pid} has not been made yet")
        return self.made

    @property
    def is_leader(self) -> bool:
        """Whether it is the main thread."""
        return self is self.process.threads[0]

    @property
    def status(self) -> Status:
        """What /proc said of the puppet when this was first asked for; credentials change afterwards."""
        if self._status is None:
            self._status = read_status(self.process.pid, self.runner.tid)
        return self._status


@dataclass(slots=True)
class RestoreProcess:
    """A process as the images say, and, once born, the puppet that becomes it.

    ``threads`` has the leader first; a zombie has only that one, and no ``mm``.
    """

    entry: m.pstree_entry
    core: m.core_entry
    mm: m.mm_entry | None
    ids: m.task_kobj_ids_entry
    parent: RestoreProcess | None = None
    threads: list[RestoreThread] = field(default_factory=list)
    children: list[RestoreProcess] = field(default_factory=list)
    #: Whose address space its own is a copy of, as that was once the steps before children were done; None: the stub's.
    cloned_from: RestoreProcess | None = None
    #: Whether the steps before children have been done.
    has_borne: bool = False
    #: Where the running kernel's vdso lies in it (start, length), once its memory is done; None if it has none.
    vdso_place: tuple[int, int] | None = None
    #: Whether its threads are made last, when the main one has its credentials and label: SELinux has it so.
    threads_last: bool = False
    #: Whether a SIGCHLD came that is of our making (a zombie, a stopped child).
    got_sigchld: bool = False
    #: Of its user namespace: images hold ids as they are inside.
    idmaps: IdMaps = IDENTITY

    @property
    def ns_pid(self) -> TreePid:
        """Its pid as the image has it."""
        return TreePid(self.entry.pid)

    @property
    def is_zombie(self) -> bool:
        """Dead, waiting for its parent."""
        return self.mm is None

    @property
    def is_born(self) -> bool:
        """Whether its puppet has been made."""
        return self.threads[0].made is not None

    @property
    def runner(self) -> Runner:
        """The main thread's runner; TorporError before it is born."""
        return self.threads[0].runner

    @property
    def pid(self) -> Pid:
        """Its pid as we see it; TorporError before it is born."""
        return self.runner.thread.tgid

    def iter_tree(self) -> Iterator[RestoreProcess]:
        """This process and all below it, parents before children."""
        stack = [self]
        while stack:
            process = stack.pop()
            yield process
            stack.extend(reversed(process.children))
