"""What a checkpoint holds, read from its images alone: nothing is restored, no kernel is asked."""

from __future__ import annotations

import os

from torpor.base.records import dataclass
from torpor.engine.sets.reading import open_set
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError, ImageMissing
from torpor.images.kinds import ImageKind
from torpor.images.manifest import Manifest
from torpor.images.pagemap import load_pagemap
from torpor.images.pages import open_contents, page_bytes_of
from torpor.images.store import ImageStore, load_all, load_one
from torpor.images.stores.opening import Location
from torpor.images.text import get_text

_DEAD = 2
_STATES = {1: "running", 2: "zombie", 3: "stopped"}
_AREA_FILE = 1 << 5 | 1 << 4
_NAMESPACES = ("pid", "net", "ipc", "uts", "time", "mnt", "user", "cgroup")
_SOCKETS = ("INETSK", "UNIXSK", "PACKETSK", "NETLINKSK")
_TCP_LISTEN = 10
_AREA_ANON_SHARED = 1 << 8
#: Of arguments, or of environment, so much is read.
MAX_STRINGS = 1 << 17


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One descriptor of a process: its number, the kind of file, and what it leads to (as far as images name it)."""

    number: int
    kind: str
    target: str


@dataclass(frozen=True, slots=True)
class CheckpointedProcess:
    """One process.  ``pid`` and ``parent`` are as it sees them itself; sizes are in bytes.

    ``command`` is empty where the images do not hold the memory that it lies in; ``shared_bytes`` is memory that others
    may share, and counted with each of them.
    """

    pid: int
    parent: int
    name: str
    state: str
    threads: tuple[int, ...]
    executable: str
    n_mappings: int
    mapped_bytes: int
    memory_bytes: int
    descriptors: tuple[Descriptor, ...]
    command: tuple[str, ...] = ()
    shared_bytes: int = 0
    uid: int = 0
    gid: int = 0
    directory: str = ""
    root: str = ""


@dataclass(frozen=True, slots=True)
class MemoryRun:
    """Addresses from ``start`` up to ``end`` (in a segment, counted from its beginning), and where their pages are: a
    word of :class:`torpor.images.pagemap.Source`.
    """

    start: int
    end: int
    source: str


@dataclass(frozen=True, slots=True)
class Memory:
    """What images say of the memory of a process (its pid), or of a shared segment (its number there)."""

    number: int
    is_segment: bool
    runs: tuple[MemoryRun, ...]

    def bytes_of(self) -> dict[str, int]:
        """How much of it is where."""
        found: dict[str, int] = {}
        for run in self.runs:
            found[run.source] = found.get(run.source, 0) + run.end - run.start
        return found


#: core_entry's march, as uname(2) says it.
_ARCHITECTURES = {
    1: "x86_64",
    2: "arm",
    3: "aarch64",
    4: "ppc64le",
    5: "s390x",
    6: "mips64",
    7: "loongarch64",
    8: "riscv64",
}


@dataclass(frozen=True, slots=True)
class Needs:
    """What must be there where the checkpoint is restored."""

    files: tuple[str, ...]
    pids: tuple[int, ...]
    namespaces: tuple[str, ...]
    addresses: tuple[str, ...]
    architecture: str


class Checkpoint:
    """A checkpoint in a directory, or in a store that somebody has opened, read on demand.

    ImageError where images are damaged or missing.  Use it in a ``with``, or ``close`` it.
    """

    def __init__(self, place: Location) -> None:
        self._store: ImageStore = open_set(place, verify=False)
        self.path = os.fspath(place) if isinstance(place, str | os.PathLike) else place.path
        load_one(self._store, kinds.INVENTORY)
        self._page_bytes = page_bytes_of(self._store)
        self._files: dict[int, m.file_entry] | None = None
        self._processes: tuple[CheckpointedProcess, ...] | None = None

    @property
    def processes(self) -> tuple[CheckpointedProcess, ...]:
        """All of them, parents before children."""
        if self._processes is None:
            self._processes = tuple(self._process(entry) for entry in load_all(self._store, kinds.PSTREE))
        return self._processes

    @property
    def manifest(self) -> Manifest | None:
        """What made it, when and where; None where nothing tells, as in CRIU's own."""
        return self._store.manifest

    @property
    def size_bytes(self) -> int:
        """What the images take on disk, apart from holes."""
        return self._store.size_bytes

    @property
    def memory_bytes(self) -> int:
        """The memory that the processes get back."""
        return sum(process.memory_bytes for process in self.processes)

    @property
    def memory(self) -> tuple[Memory, ...]:
        """Where each page is, of all processes and then of all segments; the parent images are not looked at."""
        found = []
        for kind in (kinds.PAGEMAP, kinds.SHMEM_PAGEMAP):
            for number in self._numbers_of(kind):
                pagemap = load_pagemap(self._store, number, kind, page_bytes=self._page_bytes, check_pages=False)
                runs = (MemoryRun(run.vaddr, run.end, run.source) for run in pagemap.runs)
                found.append(Memory(number, kind is kinds.SHMEM_PAGEMAP, tuple(runs)))
        return tuple(found)

    def _numbers_of(self, kind: ImageKind[m.pagemap_head]) -> list[int]:
        parsed = (kinds.by_file_name(name) for name in self._store.names())
        return sorted(each[1] for each in parsed if each and each[0] is kind and isinstance(each[1], int))

    @property
    def sockets(self) -> tuple[str, ...]:
        """One line for each socket."""
        return tuple(
            _describe(entry)[1] for entry in self._all_files().values() if _type_name(entry) in (*_SOCKETS, "NETLINK")
        )

    @property
    def needs(self) -> Needs:
        """What the destination must have."""
        namespaces, shared = self._namespaces()
        carried = self._carried()
        files = {
            _describe(entry)[1]
            for entry in self._all_files().values()
            if _type_name(entry) == "REG" and entry.id not in carried
        }
        own_pids = "pid" in namespaces
        return Needs(
            files=tuple(sorted(path for path in files if path.startswith("/") and "(deleted)" not in path)),
            pids=() if own_pids else tuple(tid for process in self.processes for tid in process.threads),
            namespaces=tuple(namespaces),
            addresses=tuple(
                sorted(
                    {
                        _describe(entry)[1]
                        for entry in self._all_files().values()
                        if entry.HasField("isk") and entry.isk.state == _TCP_LISTEN and shared
                    }
                )
            ),
            architecture=self._architecture(),
        )

    def _architecture(self) -> str:
        """As uname(2) calls the machine, by the first process's image."""
        number = load_one(self._store, kinds.CORE, self.processes[0].pid).mtype
        return _ARCHITECTURES.get(number, f"unknown ({number})")

    def close(self) -> None:
        """Let go of the directory."""
        self._store.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- reading ----------------------------------------------------------------------------------------------

    def _all_files(self) -> dict[int, m.file_entry]:
        if self._files is None:
            self._files = {entry.id: entry for entry in load_all(self._store, kinds.FILES)}
        return self._files

    def _process(self, entry: m.pstree_entry) -> CheckpointedProcess:
        core = load_one(self._store, kinds.CORE, entry.pid)
        if core.tc.task_state == _DEAD:
            return CheckpointedProcess(
                entry.pid, entry.ppid, get_text(core.tc.comm), "zombie", (entry.pid,), "", 0, 0, 0, ()
            )  # fmt: skip
        mm = load_one(self._store, kinds.MM, entry.pid)
        directory, root = self._places_of(entry.pid)
        return CheckpointedProcess(
            pid=entry.pid,
            parent=entry.ppid,
            name=get_text(core.tc.comm),
            state=_STATES.get(core.tc.task_state, str(core.tc.task_state)),
            threads=tuple(entry.threads),
            executable=self._target(mm.exe_file_id)[1],
            n_mappings=len(mm.vmas),
            mapped_bytes=sum(vma.end - vma.start for vma in mm.vmas),
            memory_bytes=self._memory_of(entry.pid),
            descriptors=self._descriptors_of(entry.pid),
            command=self._command_of(entry.pid, mm),
            shared_bytes=self._shared_of(mm),
            uid=core.thread_core.creds.uid,
            gid=core.thread_core.creds.gid,
            directory=directory,
            root=root,
        )

    def _memory_of(self, pid: int) -> int:
        try:
            return sum(run.n_bytes for run in load_pagemap(self._store, pid, page_bytes=self._page_bytes).runs)
        except ImageMissing:
            return 0

    def _command_of(self, pid: int, mm: m.mm_entry) -> tuple[str, ...]:
        return self._strings(pid, mm.mm_arg_start, mm.mm_arg_end)

    def environment_of(self, pid: int) -> tuple[str, ...]:
        """The environment that the process *pid* was started with, as ``NAME=value``; none where it is not known."""
        try:
            mm = load_one(self._store, kinds.MM, pid)
        except ImageMissing:
            return ()
        return self._strings(pid, mm.mm_env_start, mm.mm_env_end)

    def _strings(self, pid: int, start: int, end: int) -> tuple[str, ...]:
        """Strings in its memory; none if they are not in these images.  What is too long to be true is cut off."""
        end = min(end, start + MAX_STRINGS)
        try:
            with open_contents(self._store, pid, page_bytes=self._page_bytes) as contents:
                text = contents.between(start, end)
        except ImageMissing:
            return ()
        if text is None:
            return ()
        return tuple(part.decode(errors="replace") for part in text.rstrip(b"\0").split(b"\0"))

    def _carried(self) -> set[int]:
        """Files that the images bring along, since they had been deleted."""
        try:
            return {entry.orig_id for entry in load_all(self._store, kinds.REMAP_FPATH)}
        except ImageMissing:
            return set()

    def _shared_of(self, mm: m.mm_entry) -> int:
        n_bytes = 0
        for shmid in {vma.shmid for vma in mm.vmas if vma.status & _AREA_ANON_SHARED}:
            try:
                found = load_pagemap(
                    self._store, shmid, kinds.SHMEM_PAGEMAP, page_bytes=self._page_bytes, check_pages=False
                )
                n_bytes += found.n_present * self._page_bytes
            except ImageMissing:
                continue
        return n_bytes

    def _places_of(self, pid: int) -> tuple[str, str]:
        """Working and root directory, as far as files.img names them."""
        try:
            table = load_one(self._store, kinds.IDS, pid).fs_id
            name = pid if self._store.exists(kinds.FS.file_name(pid)) else table
            fs = load_one(self._store, kinds.FS, name)
        except ImageMissing:
            return "", ""
        return self._target(fs.cwd_id)[1], self._target(fs.root_id)[1]

    def _descriptors_of(self, pid: int) -> tuple[Descriptor, ...]:
        table = load_one(self._store, kinds.IDS, pid).files_id
        return tuple(
            Descriptor(entry.fd, *self._target(entry.id)) for entry in load_all(self._store, kinds.FDINFO, table)
        )

    def _target(self, file_id: int) -> tuple[str, str]:
        entry = self._all_files().get(file_id)
        if entry is None:
            raise ImageError(f"files.img has no file {file_id}")
        return _describe(entry)

    def _namespaces(self) -> tuple[list[str], bool]:
        """Kinds of namespaces that the tree has of its own, and whether it shares the network's."""
        outside = load_one(self._store, kinds.INVENTORY).root_ids
        inside = load_one(self._store, kinds.IDS, self.processes[0].pid)
        own = [
            name
            for name in _NAMESPACES
            if getattr(inside, f"{name}_ns_id")
            and getattr(inside, f"{name}_ns_id") != getattr(outside, f"{name}_ns_id")
        ]
        return own, "net" not in own


def _type_name(entry: m.file_entry) -> str:
    try:
        return m.fd_types.Name(entry.type)
    except ValueError:
        return str(entry.type)


def _describe(entry: m.file_entry) -> tuple[str, str]:
    """Kind and target of a file, for people."""
    kind = _type_name(entry)
    if entry.HasField("reg"):
        return "file", get_text(entry.reg.name)
    if entry.HasField("isk"):
        return "socket", _inet(entry.isk)
    if entry.HasField("usk"):
        name = entry.usk.name.rstrip(b"\0").replace(b"\0", b"@", 1).decode(errors="replace")
        return "socket", f"unix {name or entry.usk.ino}"
    if entry.HasField("pipe"):
        return "pipe", f"pipe {entry.pipe.pipe_id}"
    return kind.lower(), kind.lower()


def _inet(socket: m.inet_sk_entry) -> str:
    import struct

    from torpor.kernel.addresses import format_address

    protocol = {6: "tcp", 17: "udp", 136: "udplite"}.get(socket.proto, f"protocol {socket.proto}")

    def side(words: list[int], port: int) -> str:
        return format_address(struct.pack(f"={len(words)}I", *words), port)

    text = f"{protocol} {side(list(socket.src_addr), socket.src_port)}"
    if socket.state == _TCP_LISTEN and protocol == "tcp":
        return f"{text} (listening)"
    return f"{text} to {side(list(socket.dst_addr), socket.dst_port)}" if socket.dst_port else text
