"""What would stop a tree from being checkpointed, found without stopping or touching it.

The same tables decide here as in the dump: kinds of files, kinds of mappings.  What only a frozen task can tell
(registers, timers' contents, sockets' queues) is not looked at, so a clean answer is a good sign and no promise.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from torpor.base.errors import NotPermittedError, RefusedError, TargetGoneError, TorporError
from torpor.base.fds import OwnedFd
from torpor.images import messages as m
from torpor.images.memstore import MemStore
from torpor.kernel.pidfd import getfd
from torpor.kernel.procfs.maps import Vma, read_maps, read_smaps
from torpor.kernel.procfs.stat import read_stat
from torpor.kernel.procfs.status import read_status
from torpor.kernel.procfs.task import read_children, read_fdinfo_lines, read_fds
from torpor.objects.files.model import FileDump, FilePolicy, OpenFile
from torpor.objects.files.table import iter_alike
from torpor.objects.memory import vmas
from torpor.objects.model import DumpProcess
from torpor.tracee.tree import Process

#: Mappings whose name alone says that nothing can be done.
_SUSPECT = ("/[aio]", "anon_inode:")


def check(pid: int, policy: FilePolicy) -> None:
    """The quick pass before every dump: links and names only.  The first refusal is raised, with others as notes."""
    found = list(_iter_problems(pid, policy, thorough=False))
    if found:
        for other in found[1:6]:
            found[0].add_note(f"also {other}")
        raise found[0]


def problems(pid: int, policy: FilePolicy | None = None) -> list[TorporError]:
    """Everything that would stop *pid* and all below it from being checkpointed."""
    return list(_iter_problems(pid, policy or FilePolicy(), thorough=True))


def _iter_problems(pid: int, policy: FilePolicy, *, thorough: bool) -> Iterator[TorporError]:
    session = FileDump(MemStore(), iter_alike, policy)
    for process in _iter_tree(pid):
        session.processes.append(process)
        try:
            yield from _of_task(process)
            yield from _of_memory(process, session, thorough)
            yield from _of_files(process, thorough)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile, and so is nobody's problem
        except PermissionError as error:
            yield NotPermittedError(f"{process.describe()}: {error}", hint="run as root, or as its user")
        finally:
            if process.pidfd is not None:
                process.pidfd.close()


def _iter_tree(pid: int) -> Iterator[DumpProcess]:
    # All pids first: a tree that forks without a pause would keep us here for ever if each were looked at on the way.
    pids = [pid]
    for at in pids:
        pids += read_children(at)
    for at in pids:
        try:
            stat_line, status = read_stat(at), read_status(at)
            if stat_line.state in "ZX":
                continue
            pidfd = OwnedFd(os.pidfd_open(at))
        except (FileNotFoundError, ProcessLookupError):
            if at == pid:
                raise TargetGoneError(f"no process has pid {pid}") from None
            continue
        yield DumpProcess(
            tracee=Process(at, None), parent=None, pid=at, ns_pid=status.ns_tgids[-1], stat=stat_line, status=status,
            pidfd=pidfd, core=m.core_entry(), mm=m.mm_entry(), ids=m.task_kobj_ids_entry(),
        )  # fmt: skip


def _of_task(process: DumpProcess) -> Iterator[TorporError]:
    status = process.status
    if process.pid == os.getpid():
        yield RefusedError("torpor cannot checkpoint itself", hint="it is below the process that was asked for")
    if status.tracer:
        yield RefusedError(
            f"{process.describe()} is traced by pid {status.tracer}", hint="end the debugger or tracer first"
        )
    if status.shadow_stack:
        yield RefusedError(f"{process.describe()} uses a shadow stack", hint="shadow stacks are not carried yet")


def _of_memory(process: DumpProcess, session: FileDump, thorough: bool) -> Iterator[TorporError]:
    def is_suspect(vma: Vma) -> bool:
        return vma.name.startswith(_SUSPECT)

    if thorough:
        process.maps = read_smaps(process.pid)
        suspects = process.maps
    else:
        suspects = [vma for vma in read_maps(process.pid) if is_suspect(vma)]
    for vma in suspects:
        try:
            vmas.dump_one(process, vma, session)
        except RefusedError as error:
            yield error


def _of_files(process: DumpProcess, thorough: bool) -> Iterator[TorporError]:
    looks = set()
    for number in read_fds(process.pid):
        link = f"/proc/{process.pid}/fd/{number}"
        try:
            target, info = os.readlink(link), os.stat(link)
        except FileNotFoundError:
            continue  # closed meanwhile
        look = (target.partition(":")[0] if target[0] != "/" else target[-1:], stat.S_IFMT(info.st_mode))
        if look not in looks:
            looks.add(look)
            list(iter_alike(target, info.st_mode))
        plain = target.startswith("pipe:") or stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)
        if plain or (not thorough and target.startswith("socket:")):
            continue
        problem = _of_file(process, number, target, info, thorough)
        if problem is not None:
            yield problem


def _of_file(
    process: DumpProcess, number: int, target: str, info: os.stat_result, thorough: bool
) -> RefusedError | None:
    assert process.pidfd is not None
    try:
        lines = read_fdinfo_lines(process.pid, number)
        fd = OwnedFd(getfd(process.pidfd.fileno(), number)) if thorough else None
    except OSError:
        return None  # closed meanwhile
    try:
        file = OpenFile(process, number, fd.fileno() if fd else -1, target, info, lines)
        if any(kind.matches(file) for kind in iter_alike(target, info.st_mode)):
            return None
    except OSError:
        return None  # only the descriptor itself can tell, and this pass has none
    finally:
        if fd is not None:
            fd.close()
    return file.refuse(f"{target} is of a kind that cannot be checkpointed", hint="close it and try again")
