"""The images that hold what was read, and the set that they make: sealed, in its place, told of."""

from __future__ import annotations

from torpor.engine import version
from torpor.engine.dump import memory
from torpor.engine.dump.session import DumpSession
from torpor.engine.options import nobody
from torpor.images import manifest
from torpor.images import messages as m
from torpor.images.pagemap import PAGE_BYTES
from torpor.images.store import store_all, store_one
from torpor.images.text import set_text
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.model import DumpProcess
from torpor.objects.task import lsm, zombie


def write_before_end(session: DumpSession) -> None:
    """All images that are not written yet, unless the tree runs on and nobody looks at them before."""
    if session.late is None:
        _write_images(session)
        _write_inventory(session)


def write_late(session: DumpSession) -> None:
    """The same where the tree runs, but for the inventory."""
    if session.late is not None:
        _write_images(session)


def _write_images(session: DumpSession) -> None:
    """All but the inventory."""
    store = session.store
    for answered in session.answered:
        answered.write()
    for process in session.processes:
        _finish_core(process)
        for thread in process.threads:
            store_one(store, "CORE", thread.core, thread.ns_tid)
        if process.is_zombie:
            store_one(store, "CORE", process.core, process.ns_pid)
            continue
        if session.snapshots is None or not session.snapshots.has(process):
            store_one(store, "MM", process.mm, process.ns_pid)
        store_one(store, "IDS", process.ids, process.ns_pid)
    store_all(store, "PSTREE", [_tree_entry(session, process) for process in session.processes])
    store_all(store, "SECCOMP", [session.seccomp])
    session.context.write()


def write_inventory(session: DumpSession) -> None:
    """The image that says that the others are there, where the tree runs."""
    if session.late is not None:
        _write_inventory(session)


def _write_inventory(session: DumpSession) -> None:
    inventory = m.inventory_entry(
        img_version=version.of(session.processes), fdinfo_per_id=True, ns_per_id=True, lsmtype=lsm.type_here(),
        network_lock_method=session.outside.lock_method, dump_criu_run_id=session.outside.run_id,
    )  # fmt: skip
    if session.options.policies.network.tcp_close:
        inventory.tcp_close = True
    if PAGE_SIZE != PAGE_BYTES:
        inventory.torpor_page_bytes = PAGE_SIZE
    inventory.root_ids.CopyFrom(session.root_ids)
    if session.cgroups is not None:
        session.cgroups.write(session.store, inventory)
    if session.is_pre_dump:
        inventory.pre_dump_mode = m.criu_pre_dump_mode.VM_READ
    store_one(session.store, "INVENTORY", inventory)


def _finish_core(process: DumpProcess) -> None:
    core = process.core.tc
    set_text(core, "comm", process.stat.comm)
    core.flags = process.stat.flags
    if process.is_zombie:
        zombie.dump(process)
        return
    core.exit_code = 0
    core.blk_sigset = process.core.thread_core.blk_sigset
    process.core.thread_core.ClearField("blk_sigset")


def _tree_entry(session: DumpSession, process: DumpProcess) -> m.pstree_entry:
    leader, group = session.belongings[process.ns_pid]
    return m.pstree_entry(
        pid=process.ns_pid,
        ppid=process.parent.ns_pid if process.parent else 0,
        pgid=group,
        sid=leader,
        threads=[thread.ns_tid for thread in process.threads] or [process.ns_pid],
    )


def flush(session: DumpSession) -> None:
    """Write what was kept back while the tree was stopped."""
    if session.late is not None:
        session.new.sum_from_now_on()  # nobody waits any more
        session.late.flush()


def show(session: DumpSession) -> None:
    """Have the set in its place for whoever is told, unless it is whole only later."""
    if session.options.notify is not nobody and session.snapshots is None:
        place(session)


def place(session: DumpSession) -> None:
    """The set is whole, and in its place, whether the tree is gone or not."""
    _seal(session)
    session.new.place()


def notify(session: DumpSession) -> None:
    """Tell whoever wants to know that the images are there, once they are."""
    if session.snapshots is None:
        session.options.notify("post-dump", session.pid)


def notify_late(session: DumpSession) -> None:
    """The same where memory was copied from snapshots."""
    if session.snapshots is not None:
        if session.options.notify is not nobody:
            place(session)
        session.options.notify("post-dump", session.pid)


def seal_before_end(session: DumpSession) -> None:
    """The set is whole, here and where it goes besides, where the tree does not run on."""
    if not session.options.leave_running:
        _seal(session)


def commit_before_end(session: DumpSession) -> None:
    """Whoever asked for it takes note, where the tree does not run on."""
    if not session.options.leave_running:
        _commit(session)


def commit_after(session: DumpSession) -> None:
    """The same where it runs."""
    if session.options.leave_running:
        _commit(session)


def _commit(session: DumpSession) -> None:
    _seal(session)
    session.options.commit(session.new.path)


def _seal(session: DumpSession) -> None:
    if session.new.is_sealed:
        return
    for name, data in session.options.notes:
        with session.new.store.open_write(name) as stream:
            stream.write(data)
    if session.options.also is not None:
        from torpor import __version__

        # First: whoever gets it there has work to do, and that is waited for longer than all that is done here.
        session.options.also.commit(manifest.made_here(session.new.ident, session.options.made_by, __version__))
    if session.here is not None:
        memory.make_up(session)
        session.here.flush()
    session.new.seal()
