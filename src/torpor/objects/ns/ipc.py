"""ipc namespace: System V shared memory, message queues and semaphores, the sysctls; POSIX queues are in ``mqueue``.

Kernel view
    ``/proc/sysvipc`` and ``/proc/sys`` as a thread in the namespace sees them; segments are attached to be read,
    messages copied out by MSG_COPY.
Image
    ``ipc_var_entry``; ``ipc_shm_entry`` with contents in ``pagemap-shmem-ID.img``; ``ipc_msg_entry`` with its
    messages; ``ipc_sem_entry`` with its values.
Restore
    The same ids by the ``*_next_id`` sysctls.  Segments that were marked for removal are so again once mapped.
Limits
    Creators, times and last users are not carried; nor is SEM_UNDO, of which a dump warns (engine/dump/semaphores).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.typed import TypeVar
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.format import Entry
from torpor.images.kinds import ImageKind
from torpor.images.store import ImageStore, iter_entries, load_one, store_all, store_one
from torpor.kernel import sysvipc
from torpor.kernel.arch import nr
from torpor.kernel.idmap import IdMaps
from torpor.kernel.namespaces import CLONE_NEWIPC, inside
from torpor.kernel.syscall import syscall
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.files import mqueue
from torpor.objects.memory import segments
from torpor.objects.ns.model import NsDump, NsRestore

EntryT = TypeVar("EntryT", bound=m.Message)
_HUGE_SHIFT = 26
_NEXT_IDS = ("msg", "sem", "shm")
#: Image field and sysctl.
_SYSCTLS = (
    ("msg_ctlmax", "kernel/msgmax"), ("msg_ctlmnb", "kernel/msgmnb"), ("msg_ctlmni", "kernel/msgmni"),
    ("auto_msgmni", "kernel/auto_msgmni"), ("shm_ctlmax", "kernel/shmmax"), ("shm_ctlall", "kernel/shmall"),
    ("shm_ctlmni", "kernel/shmmni"), ("shm_rmid_forced", "kernel/shm_rmid_forced"),
    ("mq_queues_max", "fs/mqueue/queues_max"), ("mq_msg_max", "fs/mqueue/msg_max"),
    ("mq_msgsize_max", "fs/mqueue/msgsize_max"), ("mq_msg_default", "fs/mqueue/msg_default"),
    ("mq_msgsize_default", "fs/mqueue/msgsize_default"),
)  # fmt: skip


def dump(session: NsDump) -> None:
    """All images of the namespace."""
    inside(session.pidfd, CLONE_NEWIPC, lambda: _dump_inside(session))
    assert session.context is not None
    mqueue.dump_unopened(session.pidfd, session.idmaps, session.context)


def _dump_inside(session: NsDump) -> None:
    variables = m.ipc_var_entry()
    for name, path in _SYSCTLS:
        setattr(variables, name, int(_read(path) or 0))
    variables.sem_ctls.extend(map(int, _read("kernel/sem").split()))
    for kind in _NEXT_IDS:
        wanted = int(_read(f"kernel/{kind}_next_id") or -1)
        if wanted >= 0:
            setattr(variables, f"{kind}_next_id", wanted)
    store, ident = session.store, session.ident
    store_one(store, "IPC_VAR", variables, ident)
    store_all(store, "IPCNS_SHM", [_dump_segment(each, session) for each in sysvipc.read_objects("shm")], ident)
    size = variables.msg_ctlmax
    store_all(
        store, "IPCNS_MSG", [_dump_queue(each, size, session.idmaps) for each in sysvipc.read_objects("msg")], ident
    )
    store_all(store, "IPCNS_SEM", [_dump_set(each, session.idmaps) for each in sysvipc.read_objects("sem")], ident)


def _read(path: str) -> str:
    try:
        with open(f"/proc/sys/{path}", encoding="ascii") as stream:
            return stream.read().strip()
    except FileNotFoundError:
        return ""


def _description(found: sysvipc.IpcObject, idmaps: IdMaps) -> m.ipc_desc_entry:
    user, group = idmaps.inside(found.uid, found.gid)
    creator, creators_group = idmaps.inside(found.cuid, found.cgid)
    return m.ipc_desc_entry(
        key=found.key, uid=user, gid=group, cuid=creator, cgid=creators_group, mode=found.mode, id=found.ident
    )


def _dump_segment(found: sysvipc.IpcObject, session: NsDump) -> m.ipc_shm_entry:
    entry = m.ipc_shm_entry(desc=_description(found, session.idmaps), size=found.size, in_pagemaps=True)
    with sysvipc.attached(found.ident, sysvipc.SHM_RDONLY) as address:
        path = _map_file(address)
        block = os.stat(path).st_blksize
        if block > PAGE_SIZE:
            entry.hugetlb_flag = sysvipc.SHM_HUGETLB | (block.bit_length() - 1) << _HUGE_SHIFT
        session.segments.add_as(found.ident, path)
    return entry


def _map_file(address: int) -> str:
    """The link in our /proc that opens what is mapped at *address*."""
    start = f"{address:x}-"
    return f"/proc/self/map_files/{next(name for name in os.listdir('/proc/self/map_files') if name.startswith(start))}"


def _dump_queue(found: sysvipc.IpcObject, size: int, idmaps: IdMaps) -> Entry[m.ipc_msg_entry]:
    entry = m.ipc_msg_entry(desc=_description(found, idmaps), qbytes=sysvipc.queue_limit(found.ident), qnum=found.size)
    parts = []
    for index in range(found.size):
        mtype, text = sysvipc.peek_message(found.ident, index, max(size, entry.qbytes))
        parts.append(Entry(m.ipc_msg(mtype=mtype, msize=len(text)), text))
    return Entry(entry, parts=tuple(parts))


def _dump_set(found: sysvipc.IpcObject, idmaps: IdMaps) -> Entry[m.ipc_sem_entry]:
    entry = m.ipc_sem_entry(desc=_description(found, idmaps), nsems=found.size)
    return Entry(entry, sysvipc.semaphore_values(found.ident, found.size))


def restore(session: NsRestore) -> None:
    """Sysctls, segments with contents, queues with messages, semaphores with values."""
    try:
        inside(session.pidfd, CLONE_NEWIPC, lambda: _restore_inside(session))
        assert session.context is not None
        mqueue.restore_named(session.pidfd, session.context)
    except (OSError, ValueError, OverflowError) as error:
        raise RestoreError(f"the ipc namespace cannot be made again: {error}") from error


def _restore_inside(session: NsRestore) -> None:
    store, ident = session.store, session.ident
    variables = load_one(store, kinds.IPC_VAR, ident)
    for name, path in _SYSCTLS:
        _write(path, str(getattr(variables, name)))
    _write("kernel/sem", " ".join(map(str, variables.sem_ctls)))
    for shm in _entries(store, kinds.IPCNS_SHM, ident):
        _restore_segment(shm, session)
    for msg in _entries(store, kinds.IPCNS_MSG, ident):
        _restore_queue(msg, session.idmaps)
    for sem in _entries(store, kinds.IPCNS_SEM, ident):
        _restore_set(sem, session.idmaps)
    wanted = (
        (variables.msg_next_id, variables.HasField("msg_next_id")),
        (variables.sem_next_id, variables.HasField("sem_next_id")),
        (variables.shm_next_id, variables.HasField("shm_next_id")),
    )
    for kind, (number, is_set) in zip(_NEXT_IDS, wanted, strict=True):
        if is_set:
            sysvipc.set_next_id(kind, number)


def _entries(store: ImageStore, kind: ImageKind[EntryT], ident: int) -> Iterator[Entry[EntryT]]:
    """The entries of an image that CRIU leaves out where it would be empty."""
    if store.exists(kind.file_name(ident)):
        yield from iter_entries(store, kind, ident)


def _write(path: str, text: str) -> None:
    if text == " ".join(_read(path).split()):
        return
    try:
        with open(f"/proc/sys/{path}", "w", encoding="ascii") as stream:
            stream.write(text)
    except OSError as error:
        log.warn(f"{path} of the ipc namespace stays {_read(path)}: {error}")


def _create(kind: str, desc: m.ipc_desc_entry, get: Callable[[int], int]) -> int:
    """Make an object with the wanted id by *get*, which is told the flags."""
    try:
        sysvipc.set_next_id(kind, desc.id)
        ident = get(desc.mode & 0o777 | sysvipc.IPC_CREAT | sysvipc.IPC_EXCL)
    except OSError as error:
        raise RestoreError(f"System V {kind} {desc.id} (key {desc.key:#x}) cannot be made: {error}") from error
    if ident != desc.id:
        raise RestoreError(f"System V {kind} {desc.id} was made as {ident}")
    return ident


def _restore_segment(entry: Entry[m.ipc_shm_entry], session: NsRestore) -> None:
    shm = entry.message
    desc, size = shm.desc, shm.size
    ident = _create("shm", desc, lambda flags: sysvipc.shmget(desc.key, size, flags | shm.hugetlb_flag))
    with sysvipc.attached(ident) as address:
        with OwnedFd(os.open(_map_file(address), os.O_RDWR | os.O_CLOEXEC)) as fd:
            if shm.in_pagemaps:
                segments.restore(session.store, ident, fd.fileno(), min(size, os.fstat(fd.fileno()).st_size))
            elif os.pwrite(fd.fileno(), entry.payload, 0) != len(entry.payload):
                raise RestoreError(f"System V shm {ident} cannot be filled")
    sysvipc.own(nr.shmctl, "shmctl", ident, *_owner(desc, session.idmaps), desc.mode)
    if desc.mode & sysvipc.SHM_LOCKED:
        sysvipc.shmctl(ident, sysvipc.SHM_LOCK)


def _owner(desc: m.ipc_desc_entry, idmaps: IdMaps) -> tuple[int, int]:
    """In ids of ours; root's for what is not mapped."""
    user, group = idmaps.outside(desc.uid, desc.gid)
    return max(user, 0), max(group, 0)


def _restore_queue(entry: Entry[m.ipc_msg_entry], idmaps: IdMaps) -> None:
    msg, desc = entry.message, entry.message.desc
    ident = _create("msg", desc, lambda flags: syscall("msgget", nr.msgget, desc.key, flags))
    sysvipc.own(nr.msgctl, "msgctl", ident, *_owner(desc, idmaps), desc.mode, qbytes=msg.qbytes)
    try:
        for part in entry.parts:
            assert isinstance(part.message, m.ipc_msg)
            sysvipc.send_message(ident, part.message.mtype, part.payload)
    except (OSError, OverflowError) as error:
        raise ImageError(f"a message does not go into the queue {ident}: {error}") from error


def _restore_set(entry: Entry[m.ipc_sem_entry], idmaps: IdMaps) -> None:
    sem, desc = entry.message, entry.message.desc
    ident = _create("sem", desc, lambda flags: syscall("semget", nr.semget, desc.key, sem.nsems, flags))
    sysvipc.own(nr.semctl, "semctl", ident, *_owner(desc, idmaps), desc.mode)
    sysvipc.set_semaphore_values(ident, entry.payload)


def finish(session: NsRestore) -> None:
    """Once all segments are mapped: those that are to go with their last user."""

    def remove() -> None:
        for shm in _entries(session.store, kinds.IPCNS_SHM, session.ident):
            if shm.message.desc.mode & sysvipc.SHM_DEST:
                sysvipc.shmctl(shm.message.desc.id, sysvipc.IPC_RMID)

    inside(session.pidfd, CLONE_NEWIPC, remove)
