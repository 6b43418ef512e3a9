"""System V IPC of the calling thread's namespace: see sysvipc(7), and asm-generic/ipcbuf.h for the structures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torpor.base.records import dataclass
from torpor.kernel.arch import nr
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.ipc import IPC_STAT

IPC_CREAT = 0o1000
IPC_EXCL = 0o2000
IPC_NOWAIT = 0o4000
IPC_RMID = 0
IPC_SET = 1
GETPID = 11
GETALL = 13
SETALL = 17
SHM_RDONLY = 0o10000
SHM_REMAP = 0o40000
SHM_EXEC = 0o100000
SHM_DEST = 0o1000
SHM_LOCKED = 0o2000
SHM_HUGETLB = 0o4000
SHM_LOCK = 11
MSG_COPY = 0o40000

_UID, _GID, _MODE = 4, 8, 20
_DS_SIZE = 128
_QBYTES = 88


@dataclass(frozen=True, slots=True)
class IpcObject:
    """A segment, queue or set; ``size`` is the segment's in bytes, the queue's messages, the set's semaphores."""

    key: int
    ident: int
    mode: int
    size: int
    uid: int
    gid: int
    cuid: int
    cgid: int


def read_objects(kind: str) -> list[IpcObject]:
    """``/proc/sysvipc/`` *kind* (``shm``, ``msg`` or ``sem``) of this thread's namespace."""
    with open(f"/proc/sysvipc/{kind}", encoding="ascii") as stream:
        names = stream.readline().split()
        rows = [dict(zip(names, map(int, line.split()[: len(names)]), strict=False)) for line in stream]
    id_name, size_name = {"shm": ("shmid", "size"), "msg": ("msqid", "qnum"), "sem": ("semid", "nsems")}[kind]
    return [
        IpcObject(
            row["key"] & 0xFFFFFFFF, row[id_name], int(str(row["perms"]), 8), row[size_name],
            row["uid"], row["gid"], row["cuid"], row["cgid"],
        )
        for row in rows
    ]  # fmt: skip


def set_next_id(kind: str, ident: int) -> None:
    """Have the next segment, queue or set get this id."""
    with open(f"/proc/sys/kernel/{kind}_next_id", "w", encoding="ascii") as stream:
        stream.write(str(ident))


def shmget(key: int, size: int, flags: int) -> int:
    """shmget(2): the id of the segment of *key*, or of a new one of *size* bytes.  OSError."""
    return syscall("shmget", nr.shmget, key, size, flags)


def shmctl(ident: int, command: int, at: int = 0) -> int:
    """shmctl(2) with IPC_* or SHM_* as *command*; *at* is the address of its structure, 0 for none.  OSError."""
    return syscall("shmctl", nr.shmctl, ident, command, at)


@contextmanager
def attached(ident: int, flags: int = 0) -> Iterator[int]:
    """A segment mapped into our memory meanwhile; its address."""
    address = syscall("shmat", nr.shmat, ident, 0, flags)
    try:
        yield address
    finally:
        syscall("shmdt", nr.shmdt, address)


def own(number: int, name: str, ident: int, uid: int, gid: int, mode: int, *, qbytes: int | None = None) -> None:
    """IPC_SET by the ``*ctl`` call *number*: owner, permissions, and a queue's limit."""
    room = bytearray(_DS_SIZE)
    at = address_of(room)
    words = (0, IPC_STAT, at) if name == "semctl" else (IPC_STAT, at)
    syscall(name, number, ident, *words)
    room[_UID : _UID + 4] = uid.to_bytes(4, "little")
    room[_GID : _GID + 4] = gid.to_bytes(4, "little")
    room[_MODE : _MODE + 4] = (mode & 0o777).to_bytes(4, "little")
    if qbytes is not None:
        room[_QBYTES : _QBYTES + 8] = qbytes.to_bytes(8, "little")
    words = (0, IPC_SET, at) if name == "semctl" else (IPC_SET, at)
    syscall(name, number, ident, *words)


def queue_limit(ident: int) -> int:
    """A queue's limit in bytes."""
    room = bytearray(_DS_SIZE)
    syscall("msgctl", nr.msgctl, ident, IPC_STAT, address_of(room))
    return int.from_bytes(room[_QBYTES : _QBYTES + 8], "little")


def peek_message(ident: int, index: int, size: int) -> tuple[int, bytes]:
    """Type and text of the message at *index*, left in the queue (MSG_COPY)."""
    room = bytearray(8 + size)
    n_bytes = syscall("msgrcv", nr.msgrcv, ident, address_of(room), size, index, IPC_NOWAIT | MSG_COPY)
    return int.from_bytes(room[:8], "little", signed=True), bytes(room[8 : 8 + n_bytes])


def send_message(ident: int, mtype: int, text: bytes) -> None:
    """msgsnd(2): put a message into the queue *ident*; OSError EAGAIN where it is full, without waiting."""
    room = bytearray(mtype.to_bytes(8, "little") + text)
    syscall("msgsnd", nr.msgsnd, ident, address_of(room), len(text), IPC_NOWAIT)


def semaphore_values(ident: int, count: int) -> bytes:
    """The values of all semaphores of a set, u16 each."""
    room = bytearray(2 * count)
    syscall("semctl", nr.semctl, ident, 0, GETALL, address_of(room))
    return bytes(room)


def changed_sets() -> list[tuple[int, int]]:
    """(id, number of semaphores) of each set of this thread's namespace that semop(2) has been called for."""
    with open("/proc/sysvipc/sem", encoding="ascii") as stream:
        names = stream.readline().split()
        rows = [dict(zip(names, line.split(), strict=False)) for line in stream]
    return [(int(row["semid"]), int(row["nsems"])) for row in rows if int(row["otime"])]


def last_users(ident: int, count: int) -> set[int]:
    """The processes that were the last to change a semaphore of the set; of one that is gone, none.  0 for nobody."""
    found = set()
    for number in range(count):
        try:
            found.add(syscall("semctl", nr.semctl, ident, number, GETPID, 0))
        except OSError:
            break  # removed meanwhile, or not ours to ask
    return found


def set_semaphore_values(ident: int, values: bytes) -> None:
    """Set the values of all semaphores of a set, u16 each, as ``semaphore_values`` gives them.  OSError."""
    room = bytearray(values)
    syscall("semctl", nr.semctl, ident, 0, SETALL, address_of(room))
