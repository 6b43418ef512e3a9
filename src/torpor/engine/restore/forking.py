"""Restore, second part: puppets with the right pids, in their sessions and groups; threads once memory is in place."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from torpor.base.errors import RestoreError
from torpor.base.ids import TreePid
from torpor.engine.births import Birth, End, Member, Orphan, SetPgid, SetSid, Step, plan_births, plan_groups
from torpor.engine.family import family_of
from torpor.engine.restore import namespaces
from torpor.engine.restore.session import RestoreSession
from torpor.kernel import interrupts
from torpor.kernel.arch import nr
from torpor.kernel.namespaces import CLONE_NEWUSER
from torpor.kernel.procfs.status import read_status
from torpor.kernel.uapi.prctl import PR_SET_CHILD_SUBREAPER
from torpor.kernel.uapi.sched import CLONE_FILES, CLONE_FS, CLONE_PARENT, CLONE_SIGHAND, CLONE_VM
from torpor.objects.memory.mm import mm_of
from torpor.objects.model import RestoreProcess
from torpor.objects.task import inherited, keyrings, registers, zombie
from torpor.tracee import puppet as puppets
from torpor.tracee import stub
from torpor.tracee.batch import Batch
from torpor.tracee.guardian import Guardian
from torpor.tracee.remote import Runner, kill_and_reap

ProcessStep = Callable[[RestoreSession, RestoreProcess], None]
_SIGCHLD = 17
_WALL = 0x40000000
_LAST_FD = (1 << 32) - 1
#: What tasks share, and the flag they are cloned with for that.
_FLAGS = {
    "vm_id": CLONE_VM,
    "fs_id": CLONE_FS,
    "files_id": CLONE_FILES,
    "sighand_id": CLONE_SIGHAND,
}


def make_root(session: RestoreSession) -> None:
    """The stub, and the root puppet, which is its clone.  Every other puppet descends from the latter."""
    channel, root = session.channel, session.root
    if root.is_zombie:
        raise RestoreError(f"the tree's root, pid {root.ns_pid}, is dead")
    inherited.check()
    keep = {channel.far_number: channel.far.fileno()}
    is_sibling = session.options.sibling and session.context.parked is None
    if is_sibling or session.root_clone_flags & CLONE_NEWUSER:
        first = stub.spawn(session.area, keep_fds=keep, birth=namespaces.birth(session))
        _born(session, root, first.runner)
        # The pipe that would tell it of our death: a traced process dies with us (PTRACE_O_EXITKILL).
        first.life.close()
    session.vdso = _bear_root(session, keep).vdso
    batch = Batch()
    # All descriptors but the channel's are closed: those that the stub, whose clone the root is, has from us, those
    # that we have from our own caller, and the end of the pipe by which the stub learns of our death.
    if channel.far_number:
        batch.call(nr.close_range, 0, channel.far_number - 1, 0)
    batch.call(nr.close_range, channel.far_number + 1, _LAST_FD, 0)
    root.runner.run(batch)
    inherited.reset(root)
    inherited.tell(session.iter_threads())


def _bear_root(session: RestoreSession, keep: dict[int, int]) -> stub.Stub:
    """The guardian, and the root puppet, if it is not there yet; the stub whose clone that is."""
    ahead, joins = session.options.ahead, namespaces.joins(session)
    if not session.root.is_born and session.context.parked is not None and ahead is not None:
        seed, guard = ahead.give(session.channel, joins)
        session.guardian = Guardian(guard)
        _hand_over(session, seed)
        return seed
    if session.context.parked is not None and ahead is not None:
        ahead.put_all_back()
    session.context.parked = None
    bearer = stub.spawn(session.area, keep_fds=keep, joins=joins)
    session.guardian = Guardian(bearer)
    if not session.root.is_born:
        if session.options.template is not None:
            bearer = session.options.template.bearer(session) or bearer
        namespaces.prepare_stub(session, bearer.runner)
        _clone_root(session, bearer, 0)
    return bearer


def _hand_over(session: RestoreSession, seed: stub.Stub) -> None:
    """The root puppet has the address space of *seed*, which ends: a copy of page tables takes the longer, the more
    there is in them, and makes each page's first write one more copy until *seed* has ended.
    """
    assert session.context.parked is not None
    try:
        session.context.parked.fit(seed.runner, mm_of(session.root).vmas, session.store)
        namespaces.prepare_stub(session, seed.runner)
        _clone_root(session, seed, CLONE_VM)
    finally:
        seed.end()
    namespaces.enter_time(session)


def _clone_root(session: RestoreSession, bearer: stub.Stub, flags: int) -> None:
    root = session.root
    flags |= CLONE_PARENT | session.root_clone_flags
    _born(session, root, puppets.clone(bearer.runner, flags=flags, exit_signal=0, set_tid=[root.ns_pid]))


def make_children(session: RestoreSession, before: Sequence[ProcessStep] = ()) -> None:
    """All other puppets, in their sessions and groups; *before* is done in each just before any is cloned from it."""
    members = family_of(session.everyone)
    root = members[0]
    _check_outside(session, root)
    # A session keyring of the root's own, for its children to be born with.  Not earlier: ``make_root`` gives the root
    # the one that is common to all processes of its user (``keyrings.reset``).
    keyrings.restore_at_birth(session.root)
    midwife = _Midwife(session, dict(zip(members, session.everyone, strict=True)), before)
    births = plan_births(root)
    midwife.follow(births)
    midwife.follow(plan_groups(root, births))


def _check_outside(session: RestoreSession, root: Member) -> None:
    pids = {process.ns_pid for process in session.everyone}
    if session.options.policies.terminals.shell_job:
        return
    for what, number in (("session", root.sid), ("process group", root.pgid)):
        if number and number not in pids:
            raise RestoreError(
                f"the {what} {number} of pid {root.pid} is not in the images",
                hint="use --shell-job to restore into the caller's own",
            )


class _Midwife:
    """Carries out the steps of a plan."""

    def __init__(
        self, session: RestoreSession, processes: dict[Member, RestoreProcess], before: Sequence[ProcessStep]
    ) -> None:
        self._session = session
        self._processes = processes
        self._before = before
        self._runners: dict[Member, Runner] = {}
        self._pids: set[TreePid] = set()
        #: By member, the process of whose address space its own is a copy, by fork.
        self._image: dict[Member, RestoreProcess] = {}
        self._reserved = {thread.ns_tid for process in processes.values() for thread in process.threads}
        self._reserved |= {number for member in processes for number in (member.sid, member.pgid)}
        for member, process in processes.items():
            if process.is_born:
                self._add(member, process.runner)
                self._image[member] = process

    def follow(self, steps: Sequence[Step]) -> None:
        """All of them, in order."""
        for step in steps:
            interrupts.look()
            match step:
                case Birth(child, by, sibling):
                    self._bear(child, by, self._runner_before_birth(by), sibling)
                case Orphan(child, by, to):
                    self._orphan(child, by, to)
                case SetSid(who):
                    self._call(who, nr.setsid)
                case SetPgid(who, pgid):
                    self._set_group(who, pgid)
                case End(who):
                    self._end(self._runners[who], who.pid, who.parent)

    def _add(self, member: Member, runner: Runner) -> None:
        self._runners[member] = runner
        self._pids.add(member.pid)

    def _call(self, who: Member, number: int, *args: int) -> None:
        batch = Batch()
        batch.call(number, *args)
        self._runners[who].run(batch)

    def _runner_before_birth(self, by: Member) -> Runner:
        process = self._processes.get(by)
        if process is not None and not process.has_borne:
            process.has_borne = True
            if not process.is_zombie:
                for step in self._before:
                    step(self._session, process)
        return self._runners[by]

    def _bear(self, child: Member, by: Member, runner: Runner, sibling: bool) -> None:
        flags = CLONE_PARENT if sibling else 0
        for kind, _ in child.shares & by.shares:
            flags |= _FLAGS[kind]
        process = self._processes.get(child)
        exit_signal = zombie.exit_signal_of(process.core) if process else _SIGCHLD
        made = puppets.clone(runner, flags=flags, exit_signal=0 if sibling else exit_signal, set_tid=[child.pid])
        self._add(child, made)
        self._image[child] = self._image[by]
        if process is not None:
            process.cloned_from = self._image[by]
            self._image[child] = process
            _born(self._session, process, made)
            namespaces.join(self._session, process, process.cloned_from)
        else:
            self._session.live.append(made)

    def _orphan(self, child: Member, by: Member, to: Member) -> None:
        mother = self._runner_before_birth(by)
        while True:
            between = puppets.clone(mother, flags=0, exit_signal=0, set_tid=())
            self._session.live.append(between)
            pid = TreePid(read_status(between.tid).ns_pids[-1])
            if pid not in self._reserved:
                break
            self._end(between, pid, by)
        self._bear(child, by, between, False)
        self._call(to, nr.prctl, PR_SET_CHILD_SUBREAPER, 1)
        self._end(between, pid, by)
        self._call(to, nr.prctl, PR_SET_CHILD_SUBREAPER, 0)
        if read_status(self._runners[child].tid).ppid != self._runners[to].tid:
            raise RestoreError(f"pid {child.pid} did not become a child of pid {to.pid}")

    def _end(self, runner: Runner, pid: TreePid, parent: Member | None) -> None:
        assert parent is not None
        kill_and_reap([runner.thread])
        self._session.live.remove(runner)
        self._call(parent, nr.wait4, pid, 0, _WALL, 0)
        if parent in self._processes:
            self._processes[parent].got_sigchld = True

    def _set_group(self, who: Member, pgid: TreePid) -> None:
        self._call(who, nr.setpgid, 0, pgid if pgid in self._pids else os.getpgrp())


def make_threads(session: RestoreSession) -> None:
    """All threads but the main ones, and those that come last, and everyone's extended registers."""
    for process in session.alive:
        keyrings.restore_before_threads(process)
        others = [] if process.threads_last else process.threads[1:]
        runners = puppets.clone_threads(process.runner, [thread.ns_tid for thread in others]) if others else []
        for thread, runner in zip(others, runners, strict=True):
            thread.made = runner
            session.live.append(runner)
        for thread in [process.threads[0], *others]:
            registers.restore_xstate(thread.runner.thread, thread.core)


def make_zombies(session: RestoreSession) -> None:
    """Those that are dead in the images die."""
    for process in session.everyone:
        if process.is_zombie:
            session.live.remove(process.runner)
            zombie.restore(process)


def _born(session: RestoreSession, process: RestoreProcess, runner: Runner) -> None:
    process.threads[0].made = runner
    session.live.append(runner)
    if not process.is_zombie and process is not session.root:
        keyrings.restore_at_birth(process)
