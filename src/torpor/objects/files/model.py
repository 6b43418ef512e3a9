"""What all kinds of files share: the kind's shape, a file being dumped, and all files of a dump and of a restore.

An *open file description* is dumped once, however many descriptors and processes share it (dup, fork, CLONE_FILES,
SCM_RIGHTS); kcmp(2) tells, since /proc does not.  Restoring, the conductor opens each description once, in its own
process, and sends it to every puppet that needs it.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torpor.base.errors import RefusedError, RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.base.records import dataclass, field
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.store import ImageWriter
from torpor.images.text import get_text
from torpor.kernel import lsm
from torpor.kernel.kcmp import KCMP_FILE, KcmpIndex
from torpor.kernel.pidfd import getfd
from torpor.kernel.procfs.task import read_fd_link, read_fdinfo_lines
from torpor.objects.model import DumpProcess, RestoreProcess
from torpor.objects.session import DumpContext, RestoreContext

#: How the links begin of files whose SELinux label stands nowhere but in the kernel's memory.  Sockets, which are told
#: by their mode, have such labels as well.
_LABELLED = ("pipe:[", "/memfd:")
#: Descriptor flags that only the task itself can tell.
ASK_TASK = -1
#: Lines of fdinfo with which every file begins: pos, flags, mnt_id (fs/proc/fd.c); and ino, since 5.19.
_N_COMMON_LINES = 3
_AS_IT_IS = nullcontext()


@dataclass(slots=True)
class OpenFile:
    """One open file description being dumped.

    ``fd`` is a duplicate in our process; ``process`` and ``number`` say where it was met first.  ``fdinfo`` holds the
    lines of ``/proc/PID/fdinfo/FD``.
    """

    process: DumpProcess
    number: int
    fd: int
    target: str
    stat: os.stat_result
    fdinfo: list[str]
    in_flight: bool = False
    #: O_* as fdinfo has them, but for O_CLOEXEC, which belongs to a descriptor: ``closes_on_exec`` says whether that by
    #: which the file was met has it.  0 where there is no fdinfo.
    flags: int = 0
    closes_on_exec: bool = False
    #: The offset in the file, in bytes.
    pos: int = 0
    _mount_id: int = -1

    def __post_init__(self) -> None:
        lines, flags = self.fdinfo, 0
        if len(lines) >= _N_COMMON_LINES and lines[2].startswith("mnt_id:"):
            self.pos, flags, mount_id = int(lines[0][4:]), int(lines[1][6:], 8), int(lines[2][7:])
            if self.number >= 0 or self.in_flight:
                self._mount_id = mount_id
        elif lines:
            flags = int(self.info("flags"), 8)
        self.closes_on_exec = bool(flags & os.O_CLOEXEC)
        self.flags = flags & ~os.O_CLOEXEC

    @property
    def place(self) -> tuple[Pid, int]:
        """A process and its number for the description: ours for one that lies in a queue."""
        return (Pid(os.getpid()), self.fd) if self.in_flight else (self.process.pid, self.number)

    @property
    def mount_id(self) -> int:
        """The mount that it was opened on, which is one of its process's mount namespace in general."""
        if self._mount_id < 0:
            known = self.number >= 0 or self.in_flight
            self._mount_id = int(self.info("mnt_id")) if known else mount_of(self.fd)
        return self._mount_id

    def info(self, key: str) -> str:
        """The first fdinfo line of that key; KeyError without one."""
        head = f"{key}:"
        for line in self.fdinfo:
            if line.startswith(head):
                return line[len(head) :].strip()
        raise KeyError(key)

    def describe(self) -> str:
        """``fd 7 of pid 123 (postgres)``."""
        owner = self.process.describe()
        if self.in_flight:
            return f"a file in a queue of {owner}"
        return f"fd {self.number} of {owner}" if self.number >= 0 else f"a file of {owner}"

    def refuse(self, why: str, hint: str | None = None) -> RefusedError:
        """The error for a file that cannot be carried."""
        return RefusedError(f"{self.describe()}: {why}", hint=hint)


def mount_of(fd: int) -> int:
    """The id of the mount that a descriptor of ours was opened on."""
    lines = read_fdinfo_lines(Pid(os.getpid()), fd)
    return next((int(line[7:]) for line in lines if line.startswith("mnt_id:")), 0)


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file: how to recognise it, and its two directions.

    ``dump`` fills in the kind's member of the entry (``entry.id`` and ``type`` are set).  ``restore`` gives an open
    descriptor that the caller owns.  ``attach``, for what can be done only in a process that has the descriptor
    installed, is called once per description after all descriptors are in place.

    ``check`` raises RefusedError for what ``dump`` would refuse, as far as it can be told of a file of a task that runs
    on: it looks only, changes nothing, and may leave something for the stage KNOWN.
    """

    name: str
    fd_type: int
    matches: Callable[[OpenFile], bool]
    dump: Callable[[OpenFile, m.file_entry, DumpContext], None]
    restore: Callable[[m.file_entry, RestoreContext], int]
    attach: Callable[[m.file_entry, RestoreContext, Placed], None] | None = None
    check: Callable[[OpenFile, DumpContext], None] | None = None
    #: What ``--inherit-fd`` calls the file.
    inherit_name: Callable[[m.file_entry, RestoreContext], str] | None = None


@dataclass(slots=True)
class Placed:
    """Where a description ended up: every (process, descriptor number)."""

    fd: int
    holders: list[tuple[RestoreProcess, int]] = field(default_factory=list)


class FileDump:
    """Collects the open file descriptions of a frozen tree, each once."""

    def __init__(self, context: DumpContext, kinds_alike: Callable[[str, os.stat_result], Iterable[FileKind]]) -> None:
        """*kinds_alike*: the kinds that a file with some link may be of, in order."""
        self.entries: list[m.file_entry] = []
        #: (process, number, file id, line) of each ``lock:`` line met; :mod:`locks` turns them into an image.
        self.lock_lines: list[tuple[DumpProcess, int, int, str]] = []
        self._context = context
        self._kinds_alike = kinds_alike
        self._known: dict[tuple[int, int, int], KcmpIndex] = {}
        self._types: dict[int, int] = {}
        self._by_key: dict[object, int] = {}
        #: What SELinux calls files of which the label is nowhere but in the kernel's memory, by id.
        self.labels: dict[int, str] = {}
        self._in_flight: list[OwnedFd] = []

    def new_id(self) -> int:
        """An unused file id; 0 is never used."""
        return len(self.entries) + 1

    def new_entry(self, fd_type: int) -> m.file_entry:
        """An entry beside the one being dumped (a file that stands for it); the caller fills it in."""
        entry = m.file_entry(type=fd_type, id=self.new_id())
        self.entries.append(entry)
        self._types[entry.id] = fd_type
        return entry

    def new_twin(self, entry: m.file_entry, fd_type: int) -> m.file_entry:
        """An entry before *entry* with the same id, which says something else of the same file."""
        twin = m.file_entry(type=fd_type, id=entry.id)
        self.entries.insert(self.entries.index(entry), twin)
        return twin

    def type_of(self, file_id: int) -> int:
        """The ``fd_types`` constant of a dumped file."""
        return self._types[file_id]

    def add_descriptor(self, process: DumpProcess, number: int) -> tuple[int, int]:
        """Dump what is behind descriptor *number*; (file id, descriptor flags, or ASK_TASK)."""
        assert process.pidfd is not None
        fd = getfd(process.pidfd.fileno(), number)
        try:
            fdinfo = read_fdinfo_lines(process.pid, number)
            info = os.fstat(fd)
            file = OpenFile(process, number, fd, read_fd_link(process.pid, number, info), info, fdinfo)
            file_id = self._identify(file, process.pid, number)
            if len(fdinfo) > _N_COMMON_LINES + fdinfo[-1].startswith("ino:"):
                self.lock_lines += [(process, number, file_id, line) for line in fdinfo if line.startswith("lock:")]
            # Some calls (TIOCGPTPEER, mq_open) put O_CLOEXEC among the description's own flags.  fdinfo shows it for
            # all descriptors then, so that only the task can tell whether this one has it.
            if file.closes_on_exec and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_CLOEXEC:
                return file_id, ASK_TASK
            return file_id, int(file.closes_on_exec)
        finally:
            os.close(fd)

    def add_opened(self, key: object, file: OpenFile) -> int:
        """Dump a file that we opened ourselves (a mapping's, the executable, a directory).

        *key* says which is the same.
        """
        if key not in self._by_key:
            self._by_key[key] = self._dump(file)
        return self._by_key[key]

    def add_in_flight(self, process: DumpProcess, fd: OwnedFd) -> int:
        """Dump a description that lies in a queue of *process*, by a duplicate of ours; its id."""
        # Kept open: later descriptions are compared with it.
        self._in_flight.append(fd)
        number = fd.fileno()
        fdinfo = read_fdinfo_lines(Pid(os.getpid()), number)
        target = os.readlink(f"/proc/self/fd/{number}")
        file = OpenFile(process, -1, number, target, os.fstat(number), fdinfo, in_flight=True)
        return self._identify(file, Pid(os.getpid()), number)

    def iter_alike(self, inode: int) -> Iterator[tuple[Pid, int, int]]:
        """(pid, descriptor number, file id) of each description known so far whose file has that inode number."""
        for (_, known_inode, _), alike in self._known.items():
            if known_inode == inode:
                yield from alike

    def has(self, key: object) -> bool:
        """Whether ``add_opened`` has had *key* already."""
        return key in self._by_key

    def opened_id(self, key: object) -> int:
        """The id that ``add_opened`` gave for *key*."""
        return self._by_key[key]

    def _identify(self, file: OpenFile, pid: Pid, number: int) -> int:
        """Find the description, *number* of *pid*, among those that look alike."""
        key = (file.stat.st_dev, file.stat.st_ino, file.flags)
        alike = self._known.get(key)
        if alike is None:
            alike = self._known[key] = KcmpIndex(KCMP_FILE)
        file_id, place = alike.find(pid, number)
        if file_id is not None:
            return file_id
        # The place is taken before the kind dumps files that refer back to this one.
        alike.insert(place, pid, number, self.new_id())
        return self._dump(file)

    def _dump(self, file: OpenFile) -> int:
        for kind in self._kinds_alike(file.target, file.stat):
            if kind.matches(file):
                # The place is taken before the kind dumps other files that it refers to.
                entry = self.new_entry(kind.fd_type)
                if lsm.active() == lsm.SELINUX:
                    self._dump_label(file, entry)
                kind.dump(file, entry, self._context)
                return entry.id
        raise file.refuse(f"{file.target} is of a kind that cannot be checkpointed", hint="close it and try again")

    def _dump_label(self, file: OpenFile, entry: m.file_entry) -> None:
        """A descriptor's is in its table's image; what lies in a queue has none."""
        if not (stat.S_ISSOCK(file.stat.st_mode) or file.target.startswith(_LABELLED)):
            return
        if label := lsm.read_file_label(file.fd):
            self.labels[entry.id] = label
            if file.in_flight:
                entry.torpor_lsm_label = label

    def write(self) -> None:
        """Write files.img; nothing is added any more."""
        for fd in self._in_flight:
            fd.close()
        with ImageWriter(self._context.store, "FILES") as writer:
            for entry in self.entries:
                writer.add(entry)


class FileRestore:
    """Opens descriptions on demand, each once, and keeps them open until the end of the restore."""

    def __init__(
        self,
        context: RestoreContext,
        kind_of_type: Callable[[int], FileKind | None],
        entries: Sequence[m.file_entry],
        root_fd: int,
    ) -> None:
        #: The directory that the images' paths start from; closed with the files.
        self.root_fd = root_fd
        self.entries: dict[int, m.file_entry] = {}
        for entry in entries:
            # Entries of one id are of one file, and complete each other (``FileDump.new_twin``): the type of the last
            # one is the file's.
            self.entries.setdefault(entry.id, m.file_entry()).MergeFrom(entry)
        self.inherited: dict[str, int] = {}
        #: By file id, the SELinux labels of files that would get another one when we make them; and ``label``, that of
        #: the file that is being opened.
        self.labels: dict[int, str] = {}
        self.label = ""
        self._context = context
        self._find_kind = kind_of_type
        self._kinds: dict[int, FileKind | None] = {}
        self._open: dict[int, OwnedFd] = {}
        self._opening: set[int] = set()
        self._placed: dict[int, Placed] = {}
        self._shared: dict[object, OwnedFd] = {}
        self._roots: list[OwnedFd] = []
        self._root_of: dict[int, int] = {}
        self._hidden: dict[tuple[int, str], tuple[OwnedFd, str]] = {}
        self._makers: dict[tuple[int, str], OwnedFd] = {}

    def enter_root(self, root_fd: int) -> None:
        """Have the images' paths start from *root_fd*, which is ours to close (the root of a new mount namespace)."""
        os.close(self.root_fd)
        self.root_fd = root_fd

    def add_mounts(self, root_fd: int, mount_ids: Iterable[int]) -> None:
        """Have names of files on these mounts start from *root_fd*: they are in a mount namespace of their own."""
        root = OwnedFd(root_fd)
        self._roots.append(root)
        self._root_of.update((mount_id, root.fileno()) for mount_id in mount_ids)

    def add_hidden(self, mount_id: int, name: str, place: tuple[OwnedFd, str]) -> None:
        """Have *name* on that mount, which other mounts hide, looked up as a name below a directory."""
        self._hidden[mount_id, name] = place

    def add_maker(self, mount_id: int, name: str, directory: OwnedFd) -> None:
        """Have *name* on that mount, which is read-only, made in *directory*, the same one on a mount that is not."""
        self._makers[mount_id, name] = directory

    def maker_of(self, reg: m.reg_file_entry) -> tuple[int, str] | None:
        """Where to make what *reg* names, if not where it is to be looked up."""
        if not self._makers or (directory := self._makers.get((reg.mnt_id, get_text(reg.name)))) is None:
            return None
        return directory.fileno(), get_text(reg.name).rpartition("/")[2]

    def place_of(self, mount_id: int, name: str) -> tuple[int, str]:
        """Where to look up *name* of a file on that mount (-1: the root's namespace): a directory, a name below it."""
        hidden = self._hidden.get((mount_id, name)) if self._hidden else None
        if hidden is not None:
            return hidden[0].fileno(), hidden[1]
        return self._root_of.get(mount_id, self.root_fd), name

    def place_of_reg(self, reg: m.reg_file_entry) -> tuple[int, str]:
        """Where to look up what *reg* names."""
        return self.place_of(reg.mnt_id, get_text(reg.name))

    def placements(self) -> list[tuple[m.file_entry, Placed]]:
        """Every description that is in some descriptor table, and where."""
        return [(self.entry(file_id), placed) for file_id, placed in self._placed.items()]

    def entry(self, file_id: int) -> m.file_entry:
        """The image of a file; ImageError for an id that no entry has."""
        try:
            return self.entries[file_id]
        except KeyError:
            raise ImageError(f"files.img has no file {file_id}") from None

    def open(self, file_id: int) -> int:
        """The description as a descriptor of ours, borrowed."""
        if file_id not in self._open:
            entry = self.entry(file_id)
            kind = self._kind_of(entry)
            if kind is None:
                raise RestoreError(f"file {file_id} is of type {entry.type}, which cannot be restored yet")
            if file_id in self._opening:
                raise ImageError(f"files.img: file {file_id} depends on itself")
            self._opening.add(file_id)
            try:
                self._open[file_id] = OwnedFd(self._inherit(kind, entry) or self._make(kind, entry))
            except OSError as error:
                raise RestoreError(f"{kind.name} {file_id} cannot be opened: {error}") from error
            except (OverflowError, ValueError) as error:
                raise ImageError(f"files.img: {kind.name} {file_id} has an impossible value: {error}") from error
        return self._open[file_id].fileno()

    def _make(self, kind: FileKind, entry: m.file_entry) -> int:
        with self.labelling(entry.id):
            fd = kind.restore(entry, self._context)
        if kind.fd_type == m.fd_types.MEMFD and (label := self.labels.get(entry.id, "")):
            lsm.write_file_label(fd, label)
        return fd

    def labelling(self, file_id: int) -> AbstractContextManager[None]:
        """Have sockets that we make get that file's label; a puppet that makes any is to give them ``label``."""
        label = self.labels.get(file_id, "") if self.labels else ""
        return _AS_IT_IS if label == self.label else self._labelling(label)

    @contextmanager
    def _labelling(self, label: str) -> Iterator[None]:
        before, self.label = self.label, label
        try:
            with lsm.labelling_sockets(label, before):
                yield
        finally:
            self.label = before

    def _kind_of(self, entry: m.file_entry) -> FileKind | None:
        if entry.type not in self._kinds:
            self._kinds[entry.type] = self._find_kind(entry.type)
        return self._kinds[entry.type]

    def _inherit(self, kind: FileKind, entry: m.file_entry) -> int | None:
        """A descriptor that the caller gave us in the file's place (``--inherit-fd``)."""
        if not self.inherited or kind.inherit_name is None:
            return None
        fd = self.inherited.get(kind.inherit_name(entry, self._context).lstrip("/"))
        if fd is None:
            return None
        if stat.S_ISFIFO(os.fstat(fd).st_mode) and entry.type == m.fd_types.PIPE:
            return os.open(f"/proc/self/fd/{fd}", entry.pipe.flags | os.O_CLOEXEC)
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)

    def holders(self, file_id: int) -> list[tuple[RestoreProcess, int]]:
        """Every process that has the description so far, and its number there."""
        return self._placed[file_id].holders if file_id in self._placed else []

    def shared(self, key: object, make: Callable[[], int]) -> int:
        """A descriptor of ours for the object *key* behind several descriptions, borrowed.

        It is made by the first who asks.
        """
        if key not in self._shared:
            self._shared[key] = OwnedFd(make())
        return self._shared[key].fileno()

    def adopt(self, file_id: int, fd: int) -> None:
        """Take over an open description of *file_id* (the other end of a pair that was just made)."""
        self._open[file_id] = OwnedFd(fd)

    def placed(self, file_id: int, process: RestoreProcess, number: int) -> None:
        """Take note that *process* has the description at *number*."""
        self._placed.setdefault(file_id, Placed(self.open(file_id))).holders.append((process, number))

    def attach_all(self) -> None:
        """The last step of each kind, once all descriptors are in place."""
        for file_id, fd in list(self._open.items()):
            kind = self._kind_of(self.entry(file_id))
            if kind is not None and kind.attach is not None:
                # One that only lies in a queue (SCM_RIGHTS) is no process's: there is but our own descriptor.
                kind.attach(self.entry(file_id), self._context, self._placed.get(file_id) or Placed(fd.fileno()))

    def release(self) -> None:
        """Close our copies: an end that nobody else has must be seen to be closed when the tree runs."""
        for fd in (*self._open.values(), *self._shared.values()):
            fd.close()
        self._open.clear()
        self._shared.clear()

    def close(self) -> None:
        """Close our copies, and the directories from which names are looked up."""
        self.release()
        os.close(self.root_fd)
        for fd in (*self._roots, *self._makers.values(), *(fd for fd, _ in self._hidden.values())):
            fd.close()
