"""What would stop a tree from being checkpointed, found without stopping or touching it.

The same tables decide here as in the dump: kinds of files, kinds of mappings.  A kind's ``check`` looks at a
descriptor that is fetched from the running process.  What only a frozen task can tell (registers, timers' contents,
sockets' queues) is not looked at, so a clean answer is a good sign and no promise.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from torpor.base.errors import NotPermittedError, PassingError, RefusedError, TargetGoneError, TorporError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid, TreePid
from torpor.base.records import dataclass
from torpor.base.typed import TYPE_CHECKING
from torpor.engine.dump import privileges
from torpor.engine.dump.ids import IdAllocator, check_threads
from torpor.engine.options import CARRY, REFUSE, DumpOptions
from torpor.images import messages as m
from torpor.images.stores.memory import MemStore
from torpor.kernel.namespaces import network_of
from torpor.kernel.pidfd import getfd, open_pidfd
from torpor.kernel.procfs.maps import PROT_EXEC, Vma, read_maps, read_smaps
from torpor.kernel.procfs.small import read_small
from torpor.kernel.procfs.stat import read_stat
from torpor.kernel.procfs.status import read_status
from torpor.kernel.procfs.task import read_fd_link, read_fdinfo_lines, read_fds, read_threads, read_tree
from torpor.objects.arch import uncarried
from torpor.objects.files import locks, settings
from torpor.objects.files.model import FileDump, OpenFile
from torpor.objects.files.paths import is_plain_device
from torpor.objects.files.table import kinds_alike
from torpor.objects.memory import room, vmas
from torpor.objects.model import DumpProcess
from torpor.objects.session import DumpContext, Noticed
from torpor.objects.task import lsm, posix_timers
from torpor.tracee.tree import Process, lives_on, refuse_without_leader

if TYPE_CHECKING:
    from torpor.objects.files.leading_out import LeadingOut

#: Where the kernel keeps tasks that a freezer of v2 has stopped.  0: it does not tell (before 5.16, bc9bbb81730e).
_FROZEN_IN = ("get_signal", "do_freezer_trap", "0")
#: Processes for each of which we may have a descriptor without a thought.
_FEW = 200
#: The line of a table of semaphores behind its heading.
_FIRST_SET = 2
_NODES_ONLINE = "/sys/devices/system/node/online"
_LANDLOCK = "whether it has confined itself by Landlock: a checkpoint, which stops it, finds out, and refuses if so"
#: What comes and goes is waited for so long, and looked at so often.
_GONE_WITHIN_S, _LOOK_EVERY_S = 1, 0.005
#: Mappings whose name alone says that nothing can be done.
_SUSPECT = ("/[aio]", "anon_inode:")


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found: ``problems`` stop a checkpoint; ``losses`` are what is not there any more after a restore.

    ``unseen`` is what was not looked at, though a checkpoint may refuse for it; ``chances`` are what is not there now,
    but may stop a checkpoint when it comes to it.
    """

    problems: tuple[TorporError, ...]
    losses: tuple[str, ...] = ()
    #: What only a stopped process tells, and what a checkpoint makes of it.
    unseen: tuple[str, ...] = ()
    chances: tuple[str, ...] = ()


def check(
    pid: Pid,
    options: DumpOptions,
    *,
    by_freezer: bool = False,
    entered: Mapping[Pid, Sequence[Pid]] | None = None,
    tree: Sequence[Pid] = (),
) -> Noticed:
    """The quick pass before every dump.  The first refusal is raised, with others as notes.

    It descends to the descriptors that a kind wants to see; of mappings and all others links and names must do.  What
    kinds noticed: the answer.  *by_freezer*: whoever is frozen will be thawed.
    *entered*: what is going to be carried besides, by the pid of its parent in the images.  *tree*: all pids, if they
    have just been read.
    """
    look = _Look(pid, options, entered or {}, thorough=False, by_freezer=by_freezer, tree=tree)
    deadline = time.monotonic() + _GONE_WITHIN_S
    is_first, peer_ports = True, set[int]()
    while found := look.problems():
        peer_ports |= look.context.noticed.peer_ports
        look.context.noticed.restless.clear()  # descriptors of the tree's, which a look that is over has no use for
        is_passing = time.monotonic() < deadline and all(isinstance(each, PassingError) for each in found)
        # What comes and goes while we look (a socket between two looks at descriptors, a lock) is looked at once more.
        if not (is_first or is_passing):
            for other in found[1:6]:
                found[0].add_note(f"also {other}")
            raise found[0]
        if not is_first:
            time.sleep(_LOOK_EVERY_S)
        is_first = False
        look = _Look(pid, options, entered or {}, thorough=False, by_freezer=by_freezer)
    look.context.noticed.peer_ports |= peer_ports
    return look.context.noticed


def examine(pid: int, options: DumpOptions) -> Findings:
    """Everything that would stop *pid* and all below it from being checkpointed with *options*, or would be lost."""
    found = _examine(Pid(pid), options)
    # What comes and goes while we look is looked at once more.
    return _examine(Pid(pid), options) if found.problems else found


def _examine(pid: Pid, options: DumpOptions) -> Findings:
    from torpor.engine.dump import entered as those

    found: list[TorporError] = []
    tree = read_tree(pid)
    entered = those.find(tree)
    losses = []
    for init, pids in list(entered.items()) if options.entered != CARRY else ():
        if options.entered == REFUSE:
            found.append(those.refusal(init, pids))
        else:
            losses.append(those.loss(init, pids))
        del entered[init]
    look = _Look(pid, options, entered, thorough=True, by_freezer=bool(options.cgroups.freezer))
    found += look.problems()
    look.context.noticed.restless.clear()
    from torpor.engine.dump import namespaces

    try:
        namespaces.prepare(tree, options.policies)
        losses += namespaces.losses(pid, options.policies)
    except TorporError as problem:
        found.append(problem)
    from torpor.objects.task import landlock

    unseen = (_LANDLOCK,) if landlock.is_possible() else ()
    noticed = look.context.noticed
    return Findings(tuple(found), (*losses, *noticed.losses, *noticed.undo), unseen, tuple(_chances(noticed)))


def _chances(noticed: Noticed) -> Iterator[str]:
    if noticed.ports:
        ports = f"port {min(noticed.ports)}" if len(noticed.ports) == 1 else f"ports {sorted(noticed.ports)}"
        yield (
            f"a connection to {ports}, if there is one when it is stopped: --tcp-close has it found closed, "
            "--tcp-established carries it, which wants the address where it goes on"
        )


class _Look:
    """One pass over a tree that runs."""

    def __init__(
        self,
        pid: Pid,
        options: DumpOptions,
        entered: Mapping[Pid, Sequence[Pid]],
        *,
        thorough: bool,
        by_freezer: bool,
        tree: Sequence[Pid] = (),
    ) -> None:
        self.context = DumpContext(MemStore(), options.policies)
        self.context.files = FileDump(self.context, kinds_alike)
        self._pid, self._options, self._entered = pid, options, entered
        self._thorough, self._by_freezer, self._tree = thorough, by_freezer, tree
        #: Whether what this kernel could not make again is lost: not where it goes on, or moves to a host that has to
        #: be ready for it first.
        self._is_ended = not (options.leave_running or options.leave_stopped or options.last_words)

    def problems(self) -> list[TorporError]:
        """What stands in the way."""
        # The kernel's tables of sockets are those of the reader's network namespace.
        with network_of(self._pid):
            return list(self._iter_problems())

    def _iter_problems(self) -> Iterator[TorporError]:
        context, everyone = self.context, list[DumpProcess]()
        if lacking := list(privileges.problems()):
            yield from lacking
            return
        for process in _iter_tree(self._tree or read_tree(self._pid), self._entered):
            everyone.append(process)
            if process.is_zombie:
                continue
            context.processes.append(process)
            try:
                yield from self._of_process(process)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile, and so is nobody's problem
            except PermissionError as error:
                hint = lsm.wanted_to_look_into(process.pid) or "run as root, or as its user"
                yield NotPermittedError(f"{process.describe()}: {error}", hint=hint)
            finally:
                if process.pidfd is not None:
                    process.pidfd.close()
        yield from context.refusals()
        if len(everyone) > _FEW:
            yield from privileges.room_for(len(everyone))
        if not context.policies.files.external_pipes:
            yield from _leading_out(context).check()
        yield from _of_family(everyone, self._options, self._thorough)
        _look_at_semaphores(context)
        if self._thorough:
            yield from _of_namespaces(context)

    def _of_process(self, process: DumpProcess) -> Iterator[TorporError]:
        if denied := list(lsm.tracing_problems(process)):
            yield from denied
            return
        yield from _of_task(process, self.context.noticed)
        if not self._by_freezer:
            yield from _of_freezers(process)
        if self._is_ended:
            yield from _of_timers(process)
        yield from _of_mounts(process, self.context, self._is_ended)
        yield from _of_memory(process, self.context, self._thorough)
        yield from _of_executable(process)
        yield from _of_files(process, self.context, self._thorough)


def _of_family(everyone: Sequence[DumpProcess], options: DumpOptions, thorough: bool) -> Iterator[TorporError]:
    """Relations that could not be made again.  In the quick pass only the session and group of the root are looked at.

    The dump looks once more when nothing can change.
    """
    from torpor.engine import family

    looked_at = everyone if thorough else everyone[:1]
    if not everyone or any(process.parent is None for process in looked_at[1:]):
        return  # it changes while we look
    belongings = family.belongings(everyone, own_session=options.own_session)
    try:
        family.check(looked_at, belongings, shell_job=options.policies.terminals.shell_job)
    except RefusedError as problem:
        yield problem


def _look_at_semaphores(context: DumpContext) -> None:
    """Note who may have changed semaphores with SEM_UNDO; nothing is imported where there are none."""
    own = os.readlink("/proc/self/ns/ipc")
    with suppress(OSError):  # one has ended meanwhile
        is_own = all(os.readlink(f"/proc/{process.pid}/ns/ipc") == own for process in context.processes)
        if is_own and read_small("/proc/sysvipc/sem").count("\n") < _FIRST_SET:
            return
    from torpor.engine.dump import semaphores

    context.noticed.undo = semaphores.losses(context.processes)


def _of_namespaces(context: DumpContext) -> Iterator[TorporError]:
    """Namespaces that could not be carried; by the same functions as in the dump, which stop at the first."""
    from torpor.engine.dump import namespaces

    allocator, outside = IdAllocator(), m.task_kobj_ids_entry()
    try:
        allocator.namespaces_of("self", outside)
        for process in context.processes:
            allocator.namespaces_of(process.pid, process.ids)
        # Of one that has ended meanwhile nothing is told.
        context.processes = [process for process in context.processes if process.ids.mnt_ns_id]
        if not context.processes:
            return
        namespaces.check(context.processes, outside, context.policies.external)
        namespaces.read_idmaps(context.processes, outside)
        namespaces.look_at_mounts(context, outside)
    except RefusedError as problem:
        yield problem
    except OSError:
        return  # it ended meanwhile, or is not ours to look at, which has been said


def _iter_tree(tree: Sequence[Pid], entered: Mapping[Pid, Sequence[Pid]]) -> Iterator[DumpProcess]:
    """All of *tree* and below those who entered, the dead included, parents before children."""
    known: dict[Pid, DumpProcess] = {}
    parents = {pid: init for init, pids in entered.items() for pid in pids}
    # All pids first: a tree that forks without a pause would keep us here for ever if each were looked at on the way.
    for at in [*tree, *(pid for top in parents for pid in read_tree(top))]:
        try:
            stat_line, status = read_stat(at), read_status(at)
            is_dead = stat_line.state in "ZX" and not lives_on(at)
            pidfd = None if is_dead else OwnedFd(open_pidfd(at))
        except (FileNotFoundError, ProcessLookupError):
            if at == tree[0]:
                raise TargetGoneError(f"no process has pid {at}") from None
            continue
        known[at] = DumpProcess(
            tracee=Process(at, None, is_zombie=is_dead), parent=known.get(parents.get(at, stat_line.ppid)), pid=at,
            ns_pid=TreePid(status.ns_tgids[-1]), stat=stat_line, status=status, pidfd=pidfd, core=m.core_entry(),
            mm=m.mm_entry(), ids=m.task_kobj_ids_entry(),
        )  # fmt: skip
        yield known[at]


def _of_task(process: DumpProcess, noticed: Noticed) -> Iterator[TorporError]:
    status = process.status
    if process.stat.state in "ZX":
        yield refuse_without_leader(process.pid)
    if process.pid == os.getpid():
        yield RefusedError("torpor cannot checkpoint itself", hint="it is below the process that was asked for")
    if status.tracer:
        yield RefusedError(
            f"{process.describe()} is traced by pid {status.tracer}", hint="end the debugger or tracer first"
        )
    yield from uncarried.problems(process.describe(), status)
    try:
        tids = read_threads(process.pid)
        check_threads(process.describe(), process.pid, tids)
        noticed.threads.update(tids)
    except RefusedError as problem:
        yield problem


def _of_executable(process: DumpProcess) -> Iterator[TorporError]:
    """What a restore could not execute again, though it runs."""
    link = f"/proc/{process.pid}/exe"
    if not os.stat(link).st_mode & 0o111:
        yield RefusedError(
            f"{process.describe()}: its executable {os.readlink(link)} may not be executed any more",
            hint="chmod +x it for the checkpoint and the restore",
        )
    devices = set()
    for vma in process.maps:
        if vma.prot & PROT_EXEC and vma.is_file and vma.device not in devices:
            devices.add(vma.device)
            with suppress(OSError):  # no file that has a name
                place = f"/proc/{process.pid}/map_files/{vma.start:x}-{vma.end:x}"
                if os.statvfs(place).f_flag & os.ST_NOEXEC:
                    yield RefusedError(
                        f"{process.describe()} has code of {vma.name} mapped, which lies on a noexec mount",
                        hint="mount -o remount,exec for the checkpoint and the restore",
                    )


def _of_timers(process: DumpProcess) -> Iterator[TorporError]:
    try:
        posix_timers.check(process)
    except RefusedError as problem:
        yield problem


def _of_mounts(process: DumpProcess, context: DumpContext, is_ended: bool) -> Iterator[TorporError]:
    """Of the mount namespace, if it is not ours and is met for the first time."""
    namespace = os.readlink(f"/proc/{process.pid}/ns/mnt")
    if namespace == os.readlink("/proc/self/ns/mnt") or not context.once(("mounts", namespace)):
        return
    from torpor.objects.ns.mnt import entries

    try:
        entries.check(process, context, is_ended=is_ended)
    except RefusedError as error:
        yield error


def _of_freezers(process: DumpProcess) -> Iterator[TorporError]:
    """A frozen task cannot be stopped (v1), or does nothing for us once it is (v2)."""
    state = process.stat.state
    if state not in "DT" and (state != "S" or read_small(f"/proc/{process.pid}/wchan") not in _FROZEN_IN):
        return
    from torpor.objects.cgroup import freezer

    group = freezer.frozen_group(process.pid)
    if group:
        yield RefusedError(
            f"{process.describe()} is frozen by the control group {group}",
            hint="thaw it, or say --freeze-cgroup with its directory",
        )


def _of_memory(process: DumpProcess, context: DumpContext, thorough: bool) -> Iterator[TorporError]:
    def is_suspect(vma: Vma) -> bool:
        return vma.name.startswith(_SUSPECT)

    process.maps = read_smaps(process.pid) if thorough else read_maps(process.pid)
    yield from room.check(process, len(process.maps), context.noticed)
    yield from lsm.problems(process)
    if context.part(_Nodes).are_many:
        from torpor.objects.memory import placement

        placement.look(process, context.noticed)
    suspects = process.maps if thorough else [vma for vma in process.maps if is_suspect(vma)]
    for vma in suspects:
        try:
            vmas.dump_one(process, vma, context)
        except RefusedError as error:
            yield error
        except FileNotFoundError:
            continue  # unmapped meanwhile; if it is the process that has ended, the next step finds that


def _of_files(process: DumpProcess, context: DumpContext, thorough: bool) -> Iterator[TorporError]:
    locked = context.part(_Locked).inodes
    kinds = context.part(settings.Kinds)
    devices: set[tuple[str, int, int]] = set()
    for number in read_fds(process.pid):
        link = f"/proc/{process.pid}/fd/{number}"
        try:
            info = os.stat(link)
            target = read_fd_link(process.pid, number, info)
            device = (target, info.st_dev, info.st_ino)
            plain = (device in devices or _is_plain(target, info)) and not kinds.find(info.st_dev, link)
        except FileNotFoundError:
            continue  # closed meanwhile
        if stat.S_ISSOCK(info.st_mode):
            context.noticed.sockets.add(info.st_ino)
        else:
            context.noticed.n_other_files += 1
        kinds_alike(target, info)  # imported now: the tree runs on
        if not context.policies.files.external_pipes:
            with suppress(OSError):
                _leading_out(context).add(process, number, target)
        if not thorough and plain and info.st_ino not in locked:
            continue
        try:
            _of_file(process, number, target, info, context, thorough)
            if is_plain_device(info):
                devices.add(device)  # what was said of one is said of all
        except OSError:
            continue  # closed meanwhile, or only the descriptor itself can tell, and this pass has none
        except RefusedError as problem:
            yield problem


def _leading_out(context: DumpContext) -> LeadingOut:
    from torpor.objects.files import leading_out

    return context.part(leading_out.LeadingOut)


class _Nodes:
    """Whether this machine has several NUMA nodes, which memory can come from."""

    def __init__(self, context: DumpContext) -> None:
        self.are_many = False
        with suppress(OSError):  # a kernel without NUMA
            self.are_many = not read_small(_NODES_ONLINE).strip().isdigit()


class _Locked:
    """The files that somebody has locked."""

    def __init__(self, context: DumpContext) -> None:
        self.inodes = frozenset() if context.policies.files.file_locks else locks.locked_inodes()


def _is_plain(target: str, info: os.stat_result) -> bool:
    if stat.S_ISREG(info.st_mode):
        return not target.endswith(" (deleted)")
    return target.startswith("pipe:")


def _of_file(
    process: DumpProcess, number: int, target: str, info: os.stat_result, context: DumpContext, thorough: bool
) -> None:
    """RefusedError for a file that cannot be carried; OSError where it cannot be looked at."""
    assert process.pidfd is not None
    # Of a socket nothing but locks stands in fdinfo that a check would look at.
    has_lines = thorough or not target.startswith("socket:") or info.st_ino in context.part(_Locked).inodes
    lines = read_fdinfo_lines(process.pid, number) if has_lines else []
    for line in lines:
        if line.startswith("lock:"):
            locks.check(process, number, line, context)
    wanted = thorough or stat.S_IFMT(info.st_mode) in (stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFDIR)
    with OwnedFd(getfd(process.pidfd.fileno(), number) if wanted else -1) as fd:
        file = OpenFile(process, number, fd.fileno() if wanted else -1, target, info, lines)
        for kind in kinds_alike(target, info):
            if kind.matches(file):
                if kind.check is not None:
                    kind.check(file, context)
                return
    raise file.refuse(f"{target} is of a kind that cannot be checkpointed", hint="close it and try again")
