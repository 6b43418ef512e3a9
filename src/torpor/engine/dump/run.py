"""Dump: stop, ask, read, let go.

collect     what each process is, from /proc                       (outside)
files       descriptors come across by pidfd_getfd                 (outside)
ask         one batch a thread: what a task alone can say          (inside)
memory      pages in large vectors                                 (outside)
images      everything small is written, then the tree is let go
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack

from torpor.base import log
from torpor.base.errors import TargetGoneError, TorporError
from torpor.base.explain import explained
from torpor.base.fds import OwnedFd
from torpor.base.late import load
from torpor.base.typed import TYPE_CHECKING
from torpor.engine import family, namespaces, version
from torpor.engine.dump import deaths, preflight
from torpor.engine.dump.ids import IdAllocator
from torpor.engine.dump.warming import warm_up
from torpor.engine.options import DumpOptions, nobody
from torpor.engine.sets.places import place_inside, place_whole
from torpor.engine.sets.writing import NewSet
from torpor.engine.stats import DumpStats
from torpor.engine.time_limit import time_limit
from torpor.images import messages as m
from torpor.images.store import ImageStore, store_all, store_one
from torpor.images.stores.directory import DirStore
from torpor.images.stores.late import LateStore
from torpor.images.text import set_text
from torpor.kernel import interrupts, signal
from torpor.kernel.arch.regs import UserRegs
from torpor.kernel.namespaces import network_of
from torpor.kernel.procfs.maps import read_smaps
from torpor.kernel.procfs.stat import read_stat
from torpor.kernel.procfs.status import read_status
from torpor.objects.arch import core as image
from torpor.objects.arch import cpu, uncarried
from torpor.objects.cgroup.model import IGNORE
from torpor.objects.files import fdtable, locks
from torpor.objects.files.model import FileDump
from torpor.objects.files.table import kinds_alike
from torpor.objects.memory import mm as mm_object
from torpor.objects.memory import room, space
from torpor.objects.model import DumpProcess, DumpThread
from torpor.objects.task import landlock, lsm, registers, seccomp, signals, user_dispatch, zombie
from torpor.objects.task.table import PROCESS_ASPECTS, THREAD_ASPECTS
from torpor.tracee.batch import Batch
from torpor.tracee.borrow import BorrowedRunner, Injection, inject, split_leftovers
from torpor.tracee.pipeline import Pipeline
from torpor.tracee.tree import FrozenTree, Process, freeze

if TYPE_CHECKING:
    from torpor.engine.cgroups import CgroupDump
    from torpor.objects.cgroup.freezer import Freezer
    from torpor.tracee.caretaker import Step

_REST_WITHIN_S, _N_LOOKS, _LOOK_EVERY_S = 1, 100, 0.0005


@explained
def dump(pid: int, directory: str | os.PathLike[str], options: DumpOptions | None = None) -> DumpStats:
    """Checkpoint *pid* and everything below it into *directory*, which must exist unless it is ours.

    TargetGoneError, NotPermittedError, RefusedError, StoreError; the tree runs on after any of them, and what images
    there were in *directory* are there still.
    """
    options = options or DumpOptions()
    place = place_whole(directory, force=options.force) if options.owns_directory else place_inside(directory)
    with NewSet(place, options.made_by) as new, ExitStack() as hold:
        stats = Dump(new, options, hold).run(pid)
        try:
            new.finish()
        except TorporError as error:
            if not new.is_last:
                raise
            # The tree is gone and the set is whole: whoever comes next does the rest.
            log.warn(f"the images are complete, but perhaps not on the disk yet: {error}")
        try:
            with DirStore(options.stats_directory or directory, "w") as store:
                stats.write(store)
        except TorporError as error:
            log.warn(f"the images are complete, but their statistics cannot be written: {error}")
    return stats


class Dump:
    """One dump in progress.  *hold* is for what lasts, once there is no way back, until all is said and done."""

    def __init__(self, new: NewSet, options: DumpOptions, hold: ExitStack) -> None:
        self._new, self._hold = new, hold
        store = new.store
        #: Small images wait until the tree runs again, if it will and nobody is to see them before.
        self._late = LateStore(store) if options.leave_running and options.notify is nobody else None
        self._store: ImageStore = self._late or store
        self._options = options
        self._stats = DumpStats()
        self._ids = IdAllocator()
        self._files = FileDump(self._store, kinds_alike, options.files)
        self._files.outside.run_id = new.ident
        self._files.number_of_namespace = self._ids.namespace
        self._processes: list[DumpProcess] = []
        self._seccomp = m.seccomp_entry()
        self._cgroups: CgroupDump | None = None
        self._entered: dict[int, list[int]] = {}
        self._belongings: dict[int, family.Belonging] = {}
        self._root_ids = m.task_kobj_ids_entry(vm_id=1, files_id=1, fs_id=1, sighand_id=1)
        self._ids.namespaces_of("self", self._root_ids)

    def run(self, pid: int) -> DumpStats:
        """Do it."""
        watch = self._stats.watch
        notify = self._options.notify
        outside = self._files.outside
        self._hold.callback(outside.close)
        self._entered = load("torpor.engine.dump.entered").to_carry(pid, self._options.entered)
        by_freezer = bool(self._options.cgroups.freezer)
        seen = preflight.check(pid, self._options, by_freezer=by_freezer, entered=self._entered)
        outside.noticed, outside.restless = seen.noticed, seen.restless
        namespaces.prepare(pid, self._options.files)
        warm_up()
        if "connections" in outside.noticed or not self._options.leave_running:
            _ = outside.caretaker  # forked while nothing is frozen yet
        if self._options.cgroups.mode != IGNORE:
            self._cgroups = load("torpor.engine.cgroups").CgroupDump(self._options.cgroups, pid)
        stop = self._stopper()
        cpu.dump(self._store)
        notify("pre-dump", pid)
        with watch.span("freezing"), time_limit(self._options.timeout_s, f"stopping pid {pid} and all below it"):
            try:
                tree = self._stop_at_rest(stop, pid)
            finally:
                # They hold descriptors of the tree's: a listener that we keep open outlives the tree.
                outside.restless.clear()
        with tree, deaths.told(self._processes), self._files, watch.span("frozen"):
            if tree.root.is_zombie:
                raise TargetGoneError(f"pid {pid} has ended", hint="its parent has not waited for it yet")
            self._collect(tree.root)
            self._relieve()
            self._files.processes = self._processes
            self._check()
            namespaces.read_idmaps(self._processes, self._root_ids)
            self._lock_network()
            # The kernel's tables of sockets are those of the reader's network namespace.
            with network_of(pid):
                self._dump_all()
            self._look_for_entered()
            if notify is not nobody:
                # Whoever is told may look at the images.
                self._seal()
                self._new.place()
                notify("post-dump", pid)
                self._look_for_entered()  # hooks start processes
            if not self._options.leave_running:
                self._commit()
            self._let_go(tree)
        if self._late is not None:
            self._late.flush()
        if self._options.leave_running:
            self._commit()
        return self._stats

    def _look_for_entered(self) -> None:
        """Whoever has entered a namespace of the tree's by now dies with its first process."""
        load("torpor.engine.dump.entered").look_again(self._processes, self._options.entered)

    def _commit(self) -> None:
        """All is written: whoever asked for it takes note."""
        self._seal()
        self._options.commit(self._new.path)

    def _seal(self) -> None:
        if self._new.is_sealed:
            return
        for name, data in self._options.notes:
            with self._new.store.open_write(name) as stream:
                stream.write(data)
        self._new.seal()

    def _stop_at_rest(self, stop: Callable[[int], FrozenTree], pid: int) -> FrozenTree:
        """Stop the tree at a moment when nothing waits for it that cannot be carried, if there is one soon.

        A TCP connection that waits to be accepted is taken up by a server in less time than it takes to say so.  One
        that comes when the tree is stopped is like those that come when it is gone.
        """
        outside = self._files.outside
        if self._options.files.tcp_close or self._options.files.skip_in_flight:
            return stop(pid)
        self._is_waited_for([pid])  # once while nothing is frozen yet
        deadline = time.monotonic() + _REST_WITHIN_S
        while True:
            tree = stop(pid)
            pids = [process.pid for process in tree.processes]
            try:
                outside.was_at_rest = not self._is_waited_for(pids)
            except BaseException:
                tree.release()
                raise
            if outside.was_at_rest or time.monotonic() > deadline:
                return tree
            tree.release()
            for _ in range(_N_LOOKS):
                time.sleep(_LOOK_EVERY_S)
                if not self._is_waited_for(pids):
                    break

    def _is_waited_for(self, pids: list[int]) -> bool:
        with network_of(pids[0]):
            is_waited_for: bool = load("torpor.objects.files.socket.listeners").waited_for(pids)
        return is_waited_for or self._files.outside.is_restless()

    def _dump_all(self) -> None:
        alive = [process for process in self._processes if not process.is_zombie]
        if self._cgroups is not None:
            self._cgroups.ask(alive, self._root_ids)
        self._seccomp = seccomp.dump(alive)
        for process in alive:
            self._dump_files(process)
        locks.dump(self._files)
        for process in alive:
            self._dump_inside(process)
        namespaces.dump(self._processes, self._root_ids, self._files)
        with self._stats.watch.span("memdump"):
            self._stats.shared_pages_written += space.dump_segments(self._files)
        self._write_images()

    def _stopper(self) -> Callable[[int], FrozenTree]:
        """What stops the tree: by the freezer, if there is one, or task by task."""
        path = self._options.cgroups.freezer
        if not path:
            return lambda pid: freeze(pid, entered=self._entered)
        freezer: Freezer = load("torpor.objects.cgroup.freezer").Freezer(path, self._files.outside.caretaker)
        self._files.outside.at_commit(lambda: ((), freezer.keys))
        if self._cgroups is not None:
            self._cgroups.stopped_by(freezer)
        return lambda pid: freezer.stop(pid, entered=self._entered)

    # -- collect ---------------------------------------------------------------------------------------------

    def _collect(self, root: Process) -> None:
        known: dict[int, DumpProcess] = {}
        for tracee in root.iter_tree():
            parent = None if tracee.parent is None else known[tracee.parent.pid]
            known[tracee.pid] = self._collect_one(tracee, parent)

    def _collect_one(self, tracee: Process, parent: DumpProcess | None) -> DumpProcess:
        pid = tracee.pid
        status = read_status(pid)
        core = image.new()
        process = DumpProcess(
            tracee=tracee, parent=parent, pid=pid, ns_pid=status.ns_tgids[-1], stat=read_stat(pid), status=status,
            pidfd=None if tracee.is_zombie else OwnedFd(os.pidfd_open(pid)),
            core=core, mm=m.mm_entry(), ids=m.task_kobj_ids_entry(),
        )  # fmt: skip
        self._processes.append(process)
        if not tracee.is_zombie:
            process.ids = self._ids.ids_of(pid)
            process.maps, process.leftovers = split_leftovers(read_smaps(pid), tracee.threads)
            for thread in tracee.threads:
                thread_status = read_status(pid, thread.tid)
                thread_core = core if thread.tid == pid else image.new()
                process.threads.append(
                    DumpThread(process, thread, thread_status.ns_pids[-1], thread_status, thread_core)
                )
        self._stats.n_processes += 1
        return process

    def _relieve(self) -> None:
        """What an earlier dump, which left the tree stopped, keeps as it is until the tree goes on: it is ours now."""
        for process in self._processes:
            if not process.is_zombie and process.tracee.leader.group_stop:
                load("torpor.tracee.vigil").relieve(process.pid)

    def _check(self) -> None:
        namespaces.check(self._processes, self._root_ids, self._options.files.external)
        self._belongings = family.belongings(self._processes, own_session=self._options.own_session)
        family.check(self._processes, self._belongings, shell_job=self._options.files.shell_job)
        for process in self._processes:
            for problem in uncarried.problems(process.describe(), process.status) if not process.is_zombie else ():
                raise problem
            for thread in process.threads:
                uncarried.check(thread)

    def _lock_network(self) -> None:
        """A network namespace of the tree's own is locked as a whole, if there are connections to carry.

        In the one that is ours too only the connections themselves are, when all are known.
        """
        root, notify = self._processes[0], self._options.notify
        if root.ids.net_ns_id == self._root_ids.net_ns_id:
            return
        notify("network-lock", root.pid)
        self._files.outside.on_survival(lambda: notify("network-unlock", root.pid))
        policy = self._options.files
        # Whoever names a method wants the namespace quiet, whatever is in it.
        is_wanted = policy.tcp_established and policy.network_lock in ("nftables", "iptables")
        if "connections" in self._files.outside.noticed or is_wanted:
            assert root.pidfd is not None
            net_lock = load("torpor.objects.files.socket.net_lock")
            self._files.part(net_lock.DumpLock).lock_namespace(os.dup(root.pidfd.fileno()))

    # -- one process ------------------------------------------------------------------------------------------

    def _dump_files(self, process: DumpProcess) -> None:
        process.mm.exe_file_id = fdtable.dump_executable(process, self._files)
        space.dump_maps(process, self._files)
        if self._files.once(("table", process.ids.files_id)):
            fdtable.dump_table(process, self._files)
        fdtable.dump_fs(process, self._files)

    def _dump_inside(self, process: DumpProcess) -> None:
        scanned = space.scan(process)
        pending = 0
        for thread in process.threads:
            pending |= thread.status.pending
            user_dispatch.dump(thread)
        met: list[tuple[DumpThread, UserRegs, bytes]] = []
        with (
            room.made(process, self._files.outside),
            inject(process.tracee.leader, process.maps, process.leftovers, pending=pending) as injection,
        ):
            self._ask_threads(process, injection, met)
            with injection.borrow(process.tracee.leader) as runner:
                batch = self._questions(process.threads[0], runner)
                for process_aspect in PROCESS_ASPECTS:
                    if process_aspect.dump is not None:
                        process_aspect.dump(process, batch)
                mm_object.dump(process, batch)
                for question in process.questions:
                    question(batch)
                runner.run(batch)
                met.append((process.threads[0], runner.regs, runner.xstate))
            self._look_for_domains(process, injection)
        signals.dump_pending(process)
        for thread, regs, xstate in met:
            registers.dump(thread, regs, xstate)
        with self._stats.watch.span("memdump"):
            dumped = space.dump_contents(process, scanned, self._files)
        self._stats.pages_written += dumped.n_written
        self._stats.pages_scanned += dumped.n_scanned

    def _ask_threads(
        self, process: DumpProcess, injection: Injection, met: list[tuple[DumpThread, UserRegs, bytes]]
    ) -> None:
        """All threads but the leader, several at once."""
        borrowed: list[BorrowedRunner] = []
        try:
            with Pipeline() as pipeline:
                for thread in process.threads[1:]:
                    runner = injection.borrower(thread.thread, pipeline.next_part())
                    borrowed.append(runner)
                    pipeline.submit(runner, self._questions(thread, runner))
                    met.append((thread, runner.regs, runner.xstate))
        finally:
            for runner in borrowed:
                runner.give_back()

    def _look_for_domains(self, process: DumpProcess, injection: Injection) -> None:
        """RefusedError for threads that Landlock confines."""
        for thread in process.threads:
            if landlock.is_suspect(thread):
                with injection.borrow(thread.thread) as runner:
                    landlock.check(thread, runner)

    def _questions(self, thread: DumpThread, runner: BorrowedRunner) -> Batch:
        batch = Batch()
        for aspect in THREAD_ASPECTS:
            if aspect.dump is not None:
                aspect.dump(thread, runner.sigmask, batch)
        return batch

    # -- the end ----------------------------------------------------------------------------------------------

    def _write_images(self) -> None:
        store = self._store
        for process in self._processes:
            self._finish_core(process)
            for thread in process.threads:
                store_one(store, "CORE", thread.core, thread.ns_tid)
            if process.is_zombie:
                store_one(store, "CORE", process.core, process.ns_pid)
                continue
            store_one(store, "MM", process.mm, process.ns_pid)
            store_one(store, "IDS", process.ids, process.ns_pid)
        store_all(store, "PSTREE", [self._tree_entry(process) for process in self._processes])
        store_all(store, "SECCOMP", [self._seccomp])
        self._files.close()
        inventory = m.inventory_entry(
            img_version=version.of(self._processes), fdinfo_per_id=True, ns_per_id=True, lsmtype=lsm.type_here(),
            network_lock_method=self._files.outside.lock_method, dump_criu_run_id=self._files.outside.run_id,
        )  # fmt: skip
        if self._options.files.tcp_close:
            inventory.tcp_close = True
        inventory.root_ids.CopyFrom(self._root_ids)
        if self._cgroups is not None:
            self._cgroups.write(store, inventory)
        store_one(store, "INVENTORY", inventory)

    def _finish_core(self, process: DumpProcess) -> None:
        core = process.core.tc
        set_text(core, "comm", process.stat.comm)
        core.flags = process.stat.flags
        if process.is_zombie:
            zombie.dump(process)
            return
        core.exit_code = 0
        core.blk_sigset = process.core.thread_core.blk_sigset
        process.core.thread_core.ClearField("blk_sigset")

    def _tree_entry(self, process: DumpProcess) -> m.pstree_entry:
        session, group = self._belongings[process.ns_pid]
        return m.pstree_entry(
            pid=process.ns_pid,
            ppid=process.parent.ns_pid if process.parent else 0,
            pgid=group,
            sid=session,
            threads=[thread.ns_tid for thread in process.threads] or [process.ns_pid],
        )

    def _let_go(self, tree: FrozenTree) -> None:
        if self._options.leave_running:
            self._files.outside.survive()
            self._files.undo()
            tree.release()
        elif self._options.leave_stopped:
            self._leave_stopped(tree)
        else:
            self._kill(tree)
        log.info(f"Dumped {len(self._processes)} processes, {self._stats.pages_written} pages")

    def _kill(self, tree: FrozenTree) -> None:
        """There is no way back from here: whatever comes, signals or our death, all of the tree ends."""
        self._hold.enter_context(interrupts.held())
        self._new.is_last = True
        self._files.outside.commit(self._signals(signal.SIGKILL))
        tree.kill()
        self._files.outside.killed()

    def _leave_stopped(self, tree: FrozenTree) -> None:
        """All of it is stopped, if not by us then by the caretaker."""
        outside = self._files.outside
        self._hold.enter_context(interrupts.held())
        self._files.undo(stopped=True)
        keys = outside.caretaker.add(self._signals(signal.SIGSTOP))
        tree.leave_stopped()
        outside.caretaker.drop(keys)
        outside.wait_for_fate([(each.pid, each.pidfd.fileno()) for each in self._processes if each.pidfd is not None])

    def _signals(self, number: int) -> list[Step]:
        """What sends a signal to all."""
        signal_to = load("torpor.tracee.caretaker").signal_to
        return [signal_to(each.pidfd.fileno(), number) for each in self._processes if each.pidfd is not None]
