"""torpor: put running Linux processes to sleep in files, and wake them again.

    torpor.dump(pid, "nap")                 a process and everything below it, into the directory nap
    torpor.restore("nap")                   the same, under the same pids; gives the root's pid
    torpor.Checkpoint("nap").processes      what lies there
    torpor.problems(pid)                    what would stop it from being put to sleep

Importing this imports nothing else; the engine comes with the first call.
"""

from __future__ import annotations

__all__ = ["Checkpoint", "__version__", "dump", "problems", "restore"]
__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from torpor.base.errors import TorporError
    from torpor.engine.checkpoint import Checkpoint
    from torpor.engine.stats import DumpStats


def dump(
    pid: int,
    path: str | os.PathLike[str],
    *,
    leave_running: bool = False,
    leave_stopped: bool = False,
    timeout_s: int = 10,
    ghost_limit: int = 1 << 20,
    link_remap: bool = False,
    file_locks: bool = True,
    shell_job: bool = False,
    tcp_established: bool = False,
    tcp_close: bool = False,
    external_unix: bool = False,
    external_pipes: bool = False,
    external: tuple[str, ...] = (),
    made_by: str = "torpor.dump",
    exec_processes: str = "refuse",
    commit: Callable[[], None] | None = None,
) -> DumpStats:
    """Checkpoint *pid* and everything below it into the directory *path*, which is made if need be.

    The processes are killed unless they are to be left running or stopped.  ``timeout_s``: how long stopping them may
    take.  ``ghost_limit``: deleted files up to so many bytes are kept in the checkpoint.  ``exec_processes``: what
    becomes of processes that entered the pid namespace from outside: ``refuse``, ``carry``, ``leave-out``.  ``made_by``
    is noted in the checkpoint's manifest.  ``external_pipes``: a pipe may lead to other processes; after the restore
    nobody is at its other end, unless ``inherit_fds`` gives another pipe.  ``commit`` is
    called when all that has been written is whole, before the processes are killed; an error there is one of the
    checkpoint.

    torpor.base.errors.TorporError and its kinds; after any of them the processes run on unharmed.
    """
    from torpor.engine import dump as engine
    from torpor.engine.options import DumpOptions, nothing
    from torpor.images.dirstore import DirStore
    from torpor.objects.files.model import FilePolicy

    policy = FilePolicy(
        ghost_limit=ghost_limit,
        link_remap=link_remap,
        file_locks=file_locks,
        shell_job=shell_job,
        tcp_established=tcp_established,
        tcp_close=tcp_close,
        ext_unix=external_unix,
        external_pipes=external_pipes,
        external=external,
    )
    DirStore(path, "w", create=True).close()
    options = DumpOptions(
        made_by=made_by,
        leave_running=leave_running,
        leave_stopped=leave_stopped,
        timeout_s=timeout_s,
        files=policy,
        entered=exec_processes,
        commit=commit or nothing,
    )
    return engine.dump(pid, path, options)


def restore(
    path: str | os.PathLike[str],
    *,
    leave_stopped: bool = False,
    sibling: bool = False,
    shell_job: bool = False,
    tcp_close: bool = False,
    inherit_fds: tuple[tuple[int, str], ...] = (),
    external: tuple[str, ...] = (),
    renames: tuple[tuple[str, str], ...] = (),
    new_network: bool = False,
    notify: Callable[[str, int], None] | None = None,
) -> int:
    """Rebuild what lies in the directory *path*; the root's pid.  It runs when this returns.

    It is our child, or with ``sibling`` our parent's.  ``inherit_fds``: descriptors of ours that stand for a file of
    the checkpoint, each with that file's name.  ``renames``: paths in the checkpoint and what to open instead.
    ``new_network``: with a network namespace of its own, which has a loopback interface only.  ``notify`` is told each
    stage, by the names that criu(8) has for action scripts, and the root's pid as soon as there is one.

    torpor.base.errors.TorporError and its kinds; nothing is left of a restore that failed.
    """
    from torpor.engine import restore as engine
    from torpor.engine.options import RestoreOptions, nobody
    from torpor.objects.files.model import FilePolicy

    policy = FilePolicy(shell_job=shell_job, tcp_close=tcp_close, external=external)
    options = RestoreOptions(
        leave_stopped=leave_stopped,
        sibling=sibling,
        inherit_fds=inherit_fds,
        renames=renames,
        new_network=new_network,
        notify=notify or nobody,
        files=policy,
    )
    return engine.restore(path, options)


def problems(pid: int) -> list[TorporError]:
    """What would stop *pid* and everything below it from being checkpointed, found without stopping or touching it."""
    from torpor.engine import preflight

    return preflight.problems(pid)


def __getattr__(name: str) -> object:
    if name == "Checkpoint":
        from torpor.engine.checkpoint import Checkpoint

        return Checkpoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
