"""Restore: one conductor, many puppets.

read        images, checked as a whole before anything is made
fork        puppets with the right pids, parents before children
memory      mappings, contents, protection
files       the conductor opens each description once and sends it where it belongs
threads     made when memory is in place, since they share it
aspects     one batch a thread; credentials last
go          scratch memory is unmapped, registers are set, all are let go together
"""

from __future__ import annotations

import os
from pathlib import Path

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.engine.options import RestoreOptions
from torpor.engine.stats import RestoreStats
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.dirstore import DirStore
from torpor.images.errors import ImageError
from torpor.images.pagemap import load_pagemap
from torpor.images.store import ImageStore, load_all, load_one
from torpor.kernel import vm
from torpor.kernel.arch import loop, nr
from torpor.kernel.arch.regs import UserRegs
from torpor.kernel.procfs.status import read_status
from torpor.objects.files import fdtable
from torpor.objects.files.model import FileRestore
from torpor.objects.files.table import KINDS
from torpor.objects.memory import mm as mm_object
from torpor.objects.memory import pages, vdso, vmas
from torpor.objects.model import RestoreProcess
from torpor.objects.task import creds, registers, signals
from torpor.objects.task.table import PROCESS_ASPECTS, THREAD_ASPECTS
from torpor.tracee import puppet as puppets
from torpor.tracee import stub
from torpor.tracee.batch import Batch
from torpor.tracee.puppet import Channel, Puppet
from torpor.tracee.remote import Runner, kill_and_reap

_SIGCHLD = 17


def restore(directory: str | os.PathLike[str], options: RestoreOptions | None = None) -> int:
    """Rebuild the tree in *directory*; the root's pid as we see it.  It runs when this returns.

    ImageError: the images are damaged.  RestoreError: this machine cannot.  Nothing is left of a restore that failed.
    """
    with DirStore(Path(directory), "r") as store:
        return Restore(store, options or RestoreOptions()).run()


class Restore:
    """One restore in progress."""

    def __init__(self, store: ImageStore, options: RestoreOptions) -> None:
        self._store = store
        self._options = options
        self._stats = RestoreStats()
        self._live: list[Runner] = []
        self._far = -1

    def run(self) -> int:
        """Do it."""
        root = self._read_tree()
        everyone = list(root.iter_tree())
        area = stub.find_area([(v.start, v.end) for p in everyone if p.mm for v in p.mm.vmas])
        entries = load_all(self._store, kinds.FILES)
        far = 1 + max((entry.fd for p in everyone for entry in self._descriptors(p)), default=2)
        channel = Channel(far)
        self._far = far
        root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        files = FileRestore(self._store, KINDS, entries, root_fd)
        files.processes = everyone
        files.policy = self._options.files
        try:
            with self._stats.watch.span("forking"):
                seed = self._fork(root, area, channel)
            with self._stats.watch.span("restore"):
                for process in everyone:
                    if not process.is_zombie:
                        self._build(process, seed, files, channel)
                files.attach_all()
                self._finish(everyone, seed)
        except BaseException:
            kill_and_reap([runner.thread for runner in self._live])
            raise
        finally:
            files.close()
            channel.close()
            os.close(root_fd)
        log.info(f"Restored {len(everyone)} processes, {self._stats.pages_restored} pages")
        return root.pid

    # -- read -------------------------------------------------------------------------------------------------

    def _read_tree(self) -> RestoreProcess:
        inventory = load_one(self._store, kinds.INVENTORY)
        if inventory.img_version not in (1, 2):
            raise ImageError(f"inventory.img: image version {inventory.img_version} is not known")
        by_pid: dict[int, RestoreProcess] = {}
        root: RestoreProcess | None = None
        for entry in load_all(self._store, kinds.PSTREE):
            process = self._read_process(entry)
            if entry.pid in by_pid:
                raise ImageError(f"pstree.img: pid {entry.pid} twice")
            by_pid[entry.pid] = process
            if root is None:
                root = process
                continue
            if entry.ppid not in by_pid:
                raise ImageError(f"pstree.img: pid {entry.pid} has no parent {entry.ppid}")
            process.parent = by_pid[entry.ppid]
            process.parent.children.append(process)
        if root is None:
            raise ImageError("pstree.img holds no process")
        return root

    def _read_process(self, entry: m.pstree_entry) -> RestoreProcess:
        core = load_one(self._store, kinds.CORE, entry.pid)
        if core.mtype != m.core_entry.X86_64:
            raise ImageError(f"core-{entry.pid}.img is of another architecture")
        dead = core.tc.task_state == 2
        mm = None if dead else load_one(self._store, kinds.MM, entry.pid)
        cores = [core] if dead else [load_one(self._store, kinds.CORE, tid) for tid in entry.threads]
        return RestoreProcess(entry, core, cores, mm)

    def _descriptors(self, process: RestoreProcess) -> list[m.fdinfo_entry]:
        if process.is_zombie:
            return []
        return load_all(self._store, kinds.FDINFO, self._table_of(process))

    def _table_of(self, process: RestoreProcess) -> int:
        return load_one(self._store, kinds.IDS, process.ns_pid).files_id

    # -- fork -------------------------------------------------------------------------------------------------

    def _fork(self, root: RestoreProcess, area: int, channel: Channel) -> stub.Stub:
        seed = stub.spawn(area, keep_fds={channel.far_number: channel.far.fileno()})
        self._live.append(seed.runner)
        batch = Batch()
        batch.call(nr.close, 0)
        seed.runner.run(batch)
        runner = puppets.clone(seed.runner, flags=puppets.CLONE_PARENT, exit_signal=0, set_tid=[root.ns_pid])
        self._born(root, runner)
        # The stub has done its work: every puppet is a clone of the root from here on.
        self._live.remove(seed.runner)
        kill_and_reap([seed.thread])
        self._fork_children(root)
        return seed

    def _fork_children(self, process: RestoreProcess) -> None:
        for child in process.children:
            runner = puppets.clone(process.runner, flags=0, exit_signal=_SIGCHLD, set_tid=[child.ns_pid])
            self._born(child, runner)
            self._fork_children(child)

    def _born(self, process: RestoreProcess, runner: Runner) -> None:
        process.born = Puppet(runner.tid, runner, [runner])
        self._live.append(runner)

    # -- build ------------------------------------------------------------------------------------------------

    def _build(self, process: RestoreProcess, seed: stub.Stub, files: FileRestore, channel: Channel) -> None:
        taken = {channel.far_number}
        self._build_memory(process, seed, files, channel, taken)
        fdtable.restore_fs(process, files, channel, taken)
        fdtable.restore_table(process, self._table_of(process), files, channel)
        for core, tid in zip(process.thread_cores[1:], list(process.entry.threads)[1:], strict=True):
            thread = puppets.clone(process.runner, flags=puppets.THREAD_FLAGS, exit_signal=0, set_tid=[tid])
            process.puppet.threads.append(thread)
            self._live.append(thread)
            registers.restore_xstate(thread.thread, core)
        registers.restore_xstate(process.puppet.leader, process.core)

    def _build_memory(
        self, process: RestoreProcess, seed: stub.Stub, files: FileRestore, channel: Channel, taken: set[int]
    ) -> None:
        mm = mm_object.mm_of(process)
        made = [entry for entry in mm.vmas if vmas.is_made(entry)]
        file_ids = list(dict.fromkeys([entry.shmid for entry in made if entry.shmid] + [mm.exe_file_id]))
        numbers = channel.give(process.runner, channel.far_number, [files.open(i) for i in file_ids], taken)
        remote = dict(zip(file_ids, numbers, strict=True))
        batch = Batch()
        for entry in made:
            vmas.restore_map(entry, remote[entry.shmid] if entry.shmid else None, batch)
            batch = self._flush(process.runner, batch)
        process.runner.run(batch)
        found = load_pagemap(self._store, process.ns_pid)
        reader = self._store.pages_reader(found.pages_name)
        try:
            self._stats.pages_restored += pages.restore(process.pid, found, reader)
        finally:
            reader.close()
        batch = Batch()
        for entry in made:
            vmas.restore_attributes(entry, batch)
            batch = self._flush(process.runner, batch)
        vdso.restore(vdso.entries_of(mm), seed.vdso, batch)
        mm_object.restore(process, remote[mm.exe_file_id], batch)
        for number in numbers:
            batch.call(nr.close, number)
        process.runner.run(batch)
        taken.difference_update(numbers)

    def _flush(self, runner: Runner, batch: Batch) -> Batch:
        if batch.size < runner.scratch.size // 2:
            return batch
        runner.run(batch)
        return Batch()

    # -- finish -----------------------------------------------------------------------------------------------

    def _finish(self, everyone: list[RestoreProcess], seed: stub.Stub) -> None:
        alive = [process for process in everyone if not process.is_zombie]
        for process in alive:
            for runner, core in zip(process.puppet.threads, process.thread_cores, strict=True):
                batch = Batch()
                status = read_status(process.pid, runner.tid)
                if runner is process.runner:
                    for process_aspect in PROCESS_ASPECTS:
                        process_aspect.restore(process, batch)
                for aspect in THREAD_ASPECTS:
                    aspect.restore(core, status, batch)
                if runner is process.runner:
                    mm_object.restore_dumpable(process, batch)
                creds.restore_no_new_privs(core, batch)
                signals.restore_pending(core, process.ns_pid, self._tid_of(process, runner), batch)
                runner.run(batch)
        for process in alive:
            self._clear_scratch(process, seed)
        for process in alive:
            for runner, core in zip(process.puppet.threads, process.thread_cores, strict=True):
                runner.thread.set_sigmask(signals.mask_of(core))
                runner.thread.set_regs(registers.general(core))
        for process in alive:
            for runner in process.puppet.threads:
                runner.thread.detach()

    def _tid_of(self, process: RestoreProcess, runner: Runner) -> int:
        return process.entry.threads[process.puppet.threads.index(runner)]

    def _clear_scratch(self, process: RestoreProcess, seed: stub.Stub) -> None:
        """Unmap our loop, by the ``syscall`` instruction in the vdso."""
        code = next((e for e in vdso.entries_of(mm_object.mm_of(process)) if e.status & vmas.AREA_VDSO), None)
        if code is None:
            raise RestoreError(f"pid {process.ns_pid} has no vdso")
        assert seed.vdso.vdso is not None
        at = vm.read(process.pid, code.start, seed.vdso.vdso.length).find(loop.SYSCALL_GADGET)
        thread = process.puppet.leader
        batch = Batch()
        batch.call(nr.close, self._far)
        process.runner.run(batch)
        thread.set_sigmask((1 << 64) - 1)
        regs = UserRegs(cs=0x33, ss=0x2B, flags=0x202)
        if stub.call_at(thread, code.start + at, regs, nr.munmap, seed.area, stub.AREA_SIZE) != 0:
            raise RestoreError(f"pid {process.ns_pid}: the restorer's memory cannot be unmapped")
