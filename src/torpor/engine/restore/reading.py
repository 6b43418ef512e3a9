"""Restore, first part: the images are read and checked as a whole before anything is made."""

from __future__ import annotations

import os
from collections.abc import Iterable

from torpor.base.errors import TRUST_IT, NotPermittedError, RestoreError
from torpor.base.ids import TreePid
from torpor.base.typed import TYPE_CHECKING
from torpor.engine import version
from torpor.engine.restore.session import RestoreSession
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError, ImageMissing
from torpor.images.store import ImageStore, load_all, load_one
from torpor.images.text import get_text, set_text
from torpor.kernel.rlimits import raise_descriptor_limit
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.arch import caps, cpu
from torpor.objects.arch import core as image
from torpor.objects.files.model import FileRestore
from torpor.objects.files.table import kind_of_type
from torpor.objects.memory import room
from torpor.objects.model import RestoreProcess, RestoreThread
from torpor.objects.session import RestoreContext
from torpor.objects.task import lsm, seccomp
from torpor.tracee import stub
from torpor.tracee.puppet import Channel

if TYPE_CHECKING:
    from torpor.images.pages import Range
    from torpor.objects.memory.parked import Parked

#: Behind the standard streams, which the stub closes or uses otherwise.
_FIRST_CHANNEL = 3

_DEAD = 2


def read_images(session: RestoreSession) -> None:
    """The tree with its tasks' images, and the descriptor tables."""
    inventory = load_one(session.store, kinds.INVENTORY)
    if inventory.img_version not in version.KNOWN:
        raise ImageError(f"inventory.img: image version {inventory.img_version} is not known")
    if inventory.HasField("pre_dump_mode") and not session.store.exists(kinds.PSTREE.file_name()):
        raise ImageMissing(
            "these images are of a pre-dump, which copies memory alone", hint="restore the dump that came after it"
        )
    if inventory.HasField("torpor_page_bytes") and inventory.torpor_page_bytes != PAGE_SIZE:
        raise RestoreError(
            f"the images have pages of {inventory.torpor_page_bytes} bytes, and this kernel has pages of {PAGE_SIZE}",
            hint="restore where `getconf PAGE_SIZE` says the same",
        )
    session.everyone = list(_read_tree(session.store).iter_tree())
    if session.store.exists(kinds.SECCOMP.file_name()):
        seccomp.assign_chains(session.everyone, load_one(session.store, kinds.SECCOMP))
    for process in session.alive:
        table = process.ids.files_id
        if table not in session.descriptors:
            session.descriptors[table] = load_all(session.store, kinds.FDINFO, table)


def check_processor(session: RestoreSession) -> None:
    """RestoreError where the processor lacks what the tree may rely on."""
    cap = session.options.cpu_cap
    cores = (thread.core for process in session.alive for thread in process.threads)
    cpu.check(session.store, caps.DEFAULT if cap is None else cap, cores)


def _read_tree(store: ImageStore) -> RestoreProcess:
    by_pid: dict[int, RestoreProcess] = {}
    root: RestoreProcess | None = None
    for entry in load_all(store, kinds.PSTREE):
        process = _read_process(store, entry)
        if entry.pid in by_pid:
            raise ImageError(f"pstree.img: pid {entry.pid} twice")
        by_pid[entry.pid] = process
        if root is None:
            root = process
            continue
        if entry.ppid not in by_pid or entry.ppid == entry.pid:
            raise ImageError(f"pstree.img: pid {entry.pid} has no parent {entry.ppid}")
        process.parent = by_pid[entry.ppid]
        process.parent.children.append(process)
    if root is None:
        raise ImageError("pstree.img holds no process")
    return root


def _read_process(store: ImageStore, entry: m.pstree_entry) -> RestoreProcess:
    core = load_one(store, kinds.CORE, entry.pid)
    if not image.is_of_this_machine(core):
        raise ImageError(f"core-{entry.pid}.img is of another architecture")
    if not core.HasField("tc"):
        raise ImageError(f"core-{entry.pid}.img says nothing of the process")
    dead = core.tc.task_state == _DEAD
    mm = None if dead else load_one(store, kinds.MM, entry.pid)
    ids = m.task_kobj_ids_entry() if dead else load_one(store, kinds.IDS, entry.pid)
    process = RestoreProcess(entry, core, mm, ids)
    tids = [entry.pid] if dead else list(entry.threads)
    if not tids or tids[0] != entry.pid:
        raise ImageError(f"pstree.img: the first thread of pid {entry.pid} is another")
    for tid in tids:
        process.threads.append(
            RestoreThread(process, core if tid == entry.pid else load_one(store, kinds.CORE, tid), TreePid(tid))
        )
    return process


def plan_labels(session: RestoreSession) -> None:
    """RestoreError where this kernel cannot give the tree the security labels that it had."""
    inventory = load_one(session.store, kinds.INVENTORY)
    wanted = session.options.lsm_profile
    session.new_labels = lsm.changes(session.alive, inventory.lsmtype, wanted, dict(session.options.lsm_map))
    lsm.plan(session.alive, inventory.lsmtype, wanted, session.new_labels)


def plan(session: RestoreSession) -> None:
    """Choose what must be free in every puppet: an address for our memory, a number for our channel."""
    mappings = [(vma.start, vma.end) for process in session.everyone if process.mm for vma in process.mm.vmas]
    for process in session.everyone:
        if process.mm and not room.is_enough(n_mappings := len(process.mm.vmas)):
            raise RestoreError(
                f"pid {process.ns_pid} has {n_mappings} mappings, and this machine allows {room.max_map_count()}",
                hint=f"sysctl vm.max_map_count={n_mappings + 1000}",
            )
    parked = _parked(session, mappings)
    session.area = parked.area[0] if parked is not None else stub.find_area(mappings)
    used = {entry.fd for entries in session.descriptors.values() for entry in entries}
    # Not a number above them all: a descriptor may have the highest that the limit allows.
    number = next(number for number in range(_FIRST_CHANNEL, len(used) + _FIRST_CHANNEL + 1) if number not in used)
    known = session.options.template.channel if session.options.template is not None else None
    channel = Channel(number) if known is None or known.far_number != number else known.again()
    # Puppets inherit it, and get their own one later.
    raise_descriptor_limit()
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    context = RestoreContext(session.store, session.options.policies)
    files = context.files = FileRestore(context, kind_of_type, load_all(session.store, kinds.FILES), root_fd)
    context.processes = session.everyone
    context.new_labels = session.new_labels if session.options.policy.labels else None
    context.lend = channel.lend
    context.take_back = session.take_back
    context.orphan_master = session.options.orphan_master
    context.later = session.options.later
    context.parked = parked
    files.inherited.update((name.lstrip("/"), fd) for fd, name in session.options.inherit_fds)
    _rename(session, files)
    _label(session, files)
    session.plan(channel, context)


def _parked(session: RestoreSession, mappings: Iterable[Range]) -> Parked | None:
    """Memory that is there already, if it can be had: it is, in a stub whose children are whose the root is to be."""
    ahead = session.options.ahead
    if ahead is None:
        return None
    if ahead.is_sibling != session.options.sibling:
        ahead.put_all_back()
        return None
    return ahead.parked(session.root.ns_pid, mappings)


def _label(session: RestoreSession, files: FileRestore) -> None:
    """What security labels files are to have; of most, what we make has the right one."""
    old = {entry.id: entry.xattr_security_selinux for entries in session.descriptors.values() for entry in entries}
    labelled = [(each, old.get(each.id) or each.torpor_lsm_label) for each in files.entries.values()]
    inventory = load_one(session.store, kinds.INVENTORY)
    files.labels = lsm.plan_files(labelled, inventory.lsmtype, session.new_labels)
    if files.labels and not session.options.policy.labels:
        raise NotPermittedError(
            f"files.img: the security label {next(iter(files.labels.values()))!r} is asked for", hint=TRUST_IT
        )


def _rename(session: RestoreSession, files: FileRestore) -> None:
    """Have other files opened instead of those that the images name; what the images know of these is forgotten."""
    renames = dict(session.options.renames)
    if not renames:
        return
    for entry in files.entries.values():
        if entry.HasField("reg") and get_text(entry.reg.name) in renames:
            set_text(entry.reg, "name", renames[get_text(entry.reg.name)])
            entry.reg.ClearField("size")
            # On whatever mount that is in the tree's namespace here.
            entry.reg.mnt_id = -1


def notify_start(session: RestoreSession) -> None:
    """Tell that a restore begins."""
    session.options.notify("pre-restore", 0)
