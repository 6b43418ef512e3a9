"""Images of small trees, in memory: what a test says of them, and else as a dump of an ordinary process has them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from torpor.engine.options import RestoreOptions
from torpor.engine.restore.session import RestoreSession
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import store_all, store_one
from torpor.images.stores.memory import MemStore
from torpor.objects.files.model import FileRestore
from torpor.objects.session import RestoreContext

_LABEL_REQUIRED = 2
_MESSAGE = 11
#: The dumper's own namespaces.
OUTSIDE = {name: 1 for name in (
    "pid_ns_id", "net_ns_id", "ipc_ns_id", "uts_ns_id", "mnt_ns_id", "user_ns_id", "time_ns_id", "cgroup_ns_id",
)}  # fmt: skip
_ALIVE, DEAD = 1, 2


def filled(message: Any) -> Any:
    """The message, with 0 or nothing in each field that it must have and that nobody has set."""
    for field_ in message.DESCRIPTOR.fields:
        if field_.is_repeated:
            if field_.type == _MESSAGE:
                for each in getattr(message, field_.name):
                    filled(each)
        elif field_.type == _MESSAGE:
            if field_.is_required or message.HasField(field_.name):
                filled(getattr(message, field_.name)).SetInParent()
        elif field_.is_required and not message.HasField(field_.name):
            setattr(message, field_.name, field_.default_value)
    return message


@dataclass
class Member:
    """A process: ``fds`` are its descriptors, ``vmas`` its mappings' starts and ends."""

    pid: int
    ppid: int = 0
    sid: int = 0
    pgid: int = 0
    fds: Sequence[int] = (0, 1, 2)
    vmas: Sequence[tuple[int, int]] = ((0x400000, 0x401000),)
    threads: Sequence[int] = ()
    is_dead: bool = False
    ids: dict[str, int] = field(default_factory=dict)

    def core(self) -> m.core_entry:
        core = m.core_entry(mtype=m.core_entry.X86_64)
        core.tc.task_state = DEAD if self.is_dead else _ALIVE
        core.tc.comm = f"p{self.pid}"
        core.thread_core.SetInParent()
        found: m.core_entry = filled(core)
        return found


def stored(
    members: Iterable[Member], files: Iterable[m.file_entry] = (), inventory: m.inventory_entry | None = None
) -> MemStore:
    """The images of a tree."""
    store = MemStore()
    told = inventory or m.inventory_entry()
    if not told.HasField("img_version"):
        told.img_version = 2
    for name, number in OUTSIDE.items():
        setattr(told.root_ids, name, number)
    store_one(store, kinds.INVENTORY.name, filled(told))
    tree = []
    for each in members:
        tids = [each.pid, *each.threads]
        tree.append(
            m.pstree_entry(
                pid=each.pid, ppid=each.ppid, sid=each.sid or each.pid, pgid=each.pgid or each.pid, threads=tids
            )
        )
        for tid in tids:
            store_one(store, kinds.CORE.name, each.core(), tid)
        if each.is_dead:
            continue
        own = {"vm_id": each.pid, "files_id": each.pid, "fs_id": each.pid, "sighand_id": each.pid}
        store_one(store, kinds.IDS.name, filled(m.task_kobj_ids_entry(**(own | OUTSIDE | each.ids))), each.pid)
        mm = m.mm_entry()
        for start, end in each.vmas:
            mm.vmas.add(start=start, end=end)
        store_one(store, kinds.MM.name, filled(mm), each.pid)
        table = each.ids.get("files_id", each.pid)
        store_all(store, kinds.FDINFO, [filled(m.fdinfo_entry(id=1, fd=fd)) for fd in each.fds], table)
    store_all(store, kinds.PSTREE, tree)
    store_all(store, kinds.FILES, [filled(each) for each in files])
    return store


def session_of(store: MemStore, options: RestoreOptions | None = None, **ready: Any) -> RestoreSession:
    """A restore from *store* that has not begun."""
    session = RestoreSession(store, options or RestoreOptions())
    for name, value in ready.items():
        setattr(session, name, value)
    return session


def runner(pid: int, tid: int = 0) -> Any:
    """What stands for a puppet."""
    thread = SimpleNamespace(tgid=pid, tid=tid or pid)
    return SimpleNamespace(thread=thread, tid=thread.tid)


def read(store: MemStore, options: RestoreOptions | None = None) -> RestoreSession:
    """One that has read its images, and knows the files."""
    from torpor.engine.restore import reading
    from torpor.images.store import load_all
    from torpor.tracee.puppet import Channel

    session = session_of(store, options)
    reading.read_images(session)
    context = RestoreContext(store, session.options.policies)
    context.files = FileRestore(context, lambda entry: None, load_all(store, kinds.FILES), -1)
    session.plan(Channel(3), context)
    return session
