"""torpor: put running Linux processes to sleep in files, and wake them again.

    torpor.dump(pid, "nap")                 a process and everything below it, into the directory nap
    torpor.restore("nap")                   the same, under the same pids; gives the root's pid
    torpor.Checkpoint("nap").processes      what lies there
    torpor.problems(pid)                    what would stop it from being put to sleep
    torpor.examine(pid)                     the same, and what would be lost

Importing this imports nothing else; the engine comes with the first call.
"""

from __future__ import annotations

__all__ = ["Checkpoint", "Findings", "__version__", "dump", "examine", "pre_dump", "problems", "restore"]
__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from torpor.base.errors import TorporError
    from torpor.engine.dump.preflight import Findings
    from torpor.engine.options import DumpOptions, Give
    from torpor.engine.restore.ahead import Ahead
    from torpor.engine.restore.template import Template
    from torpor.engine.sets.contents import Checkpoint
    from torpor.engine.stats import DumpStats
    from torpor.images.store import ImageStore
    from torpor.images.stores.opening import Location
    from torpor.migrate.behind import Bringing
    from torpor.objects.memory.tracking import Tracker


def dump(
    pid: int,
    path: Location,
    *,
    leave_running: bool = False,
    leave_stopped: bool = False,
    timeout_s: int = 10,
    snapshot: str = "auto",
    ghost_limit: int = 64 << 20,
    link_remap: bool = False,
    file_locks: bool = True,
    shell_job: bool = False,
    tcp_established: bool = False,
    tcp_close: bool = False,
    external_unix: bool = False,
    external_pipes: bool = False,
    external: tuple[str, ...] = (),
    exec_processes: str = "refuse",
    own_session: bool = True,
    compress: bool = False,
    made_by: str = "torpor.dump",
    force: bool = False,
    commit: Callable[[str], None] | None = None,
    notes: tuple[tuple[str, bytes], ...] = (),
    also: ImageStore | None = None,
    last_words: tuple[tuple[int, bytes], ...] = (),
    parent: str = "",
    tracker: Tracker | None = None,
    give: Give | None = None,
    once_more: Callable[[], None] | None = None,
) -> DumpStats:
    """Checkpoint *pid* and everything below it into the directory *path*, which is made if need be, or into one file.

    It is one file by its name: ``X.tar.zst``, ``X.tar.gz``, ``X.tar``; and a stream if *path* is ``-`` (standard
    output) or a FIFO with such a name.  A store that somebody has opened (``torpor.images.store``) stays open.  A
    checkpoint that is there already stays until the new one is whole, and is replaced by it.  Where others' files are
    in *path*, this is an error unless ``force``, which leaves them there.

    The processes are killed unless they are to be left running or stopped.  ``timeout_s``: how long stopping them may
    take.  ``snapshot`` (``auto``, ``always``, ``never``): whether those that are left running run on while their memory
    is copied, from copies-on-write of it.  ``ghost_limit``: deleted files up to so many bytes are kept in the
    checkpoint.  ``exec_processes``: what becomes of processes that entered the pid namespace from outside: ``refuse``,
    ``carry``, ``leave-out``.  ``own_session``: a command that was started from a shell leads a session of its own when
    it is restored, unless ``shell_job`` keeps it in the caller's.  ``external_pipes``: a pipe may lead to other
    processes; after the restore nobody is at its other end, unless ``inherit_fds`` gives another pipe.  ``compress``:
    memory is compressed (zstd), which has the processes stopped for longer.  ``made_by`` is noted in the checkpoint's
    manifest.  ``commit`` is called when all that has been written is whole, before the processes are killed, with a
    path to read it by just then; an error there is one of the checkpoint.  ``notes``: small files, names and contents,
    that are to be part of it.  ``also``: a store that gets all images as well.  ``last_words``: sockets' descriptors,
    and what is sent there as soon as the processes can never run again, by another process of ours if we are killed
    then; perhaps twice.  ``parent``, ``tracker``: as of :func:`pre_dump`, after such.  ``give``: memory that may come
    after a restore is not copied; this is called when all else is done, with what remains
    (:class:`torpor.engine.options.Remaining`), and the processes are killed when it returns.  ``once_more`` is called
    when all has been looked at that can be while they run, and ``parent`` has not: it may be made by that.

    torpor.base.errors.TorporError and its kinds; after any of them the processes run on unharmed.
    """
    from torpor.engine.destination import going_to
    from torpor.engine.dump import run as engine

    def committed(images: str) -> None:
        finish(images)
        if commit is not None:
            commit(images)

    options = _dump_options(
        made_by=made_by,
        commit=committed,
        notes=notes,
        also=also,
        last_words=last_words,
        prev_images_dir=parent,
        tracker=tracker,
        compress=compress,
        force=force,
        leave_running=leave_running,
        leave_stopped=leave_stopped,
        timeout_s=timeout_s,
        snapshot=snapshot,
        exec_processes=exec_processes,
        own_session=own_session and not shell_job,
        ghost_limit=ghost_limit,
        link_remap=link_remap,
        file_locks=file_locks,
        shell_job=shell_job,
        tcp_established=tcp_established,
        tcp_close=tcp_close,
        external_unix=external_unix,
        external_pipes=external_pipes,
        external=external,
    )
    if give is not None or once_more is not None:
        from torpor.base.records import replace

        options = replace(options, give=give, once_more=once_more or options.once_more)
    with going_to(path, pid, leave_running=leave_running) as (room, finish):
        return engine.dump(pid, room, options)


def pre_dump(
    pid: int,
    path: Location,
    *,
    tracker: Tracker | None = None,
    parent: str = "",
    also: ImageStore | None = None,
    made_by: str = "torpor.pre_dump",
    unsettled: bool = False,
    **others: Any,
) -> DumpStats:
    """Copy the memory of *pid* and all below it into *path*, while they run; a dump that follows copies the rest.

    ``tracker`` (``torpor.objects.memory.tracking.Tracker``) notes what is written from then on, until it is closed, and
    is given to the next ``pre_dump`` and to the ``dump``, as is ``parent``: the directory, from that of its images, of
    the set before.  ``unsettled``: the images need not be on the disk when this returns; they get their sums when they
    are first read.  ``also`` and *others*: as of :func:`dump`.
    """
    from torpor.base.records import replace
    from torpor.engine.dump import run as engine

    told = {"own_session": True, **others, "track_mem": True, "prev_images_dir": parent}
    options = _dump_options(made_by=made_by, also=also, tracker=tracker, **told)
    return engine.pre_dump(pid, path, replace(options, unsettled=unsettled))


def restore(
    path: Location,
    *,
    leave_stopped: bool = False,
    sibling: bool = False,
    shell_job: bool = False,
    tcp_established: bool = False,
    tcp_close: bool = False,
    file_locks: bool = True,
    link_remap: bool = False,
    external_unix: bool = False,
    external_pipes: bool = False,
    inherit_fds: tuple[tuple[int, str], ...] = (),
    external: tuple[str, ...] = (),
    file_validation: str = "buildid",
    rewind_files: Callable[[str, int, int], bool] | None = None,
    renames: tuple[tuple[str, str], ...] = (),
    new_network: bool = False,
    lazy: bool = False,
    template: Template | None = None,
    trust: bool = False,
    verify: bool = True,
    notify: Callable[[str, int], None] | None = None,
    ahead: Ahead | None = None,
    later: Bringing | None = None,
) -> int:
    """Rebuild what lies in the directory or the archive *path*; the root's pid.  It runs when this returns.

    ``-`` is standard input: there, and in a FIFO ``X.tar``, an archive is read to its end first.  A store that somebody
    has opened stays open.

    It is our child, or with ``sibling`` our parent's.  ``inherit_fds``: descriptors of ours that stand for a file of
    the checkpoint, each with that file's name.  ``renames``: paths in the checkpoint and what to open instead.
    ``new_network``: with a network namespace of its own, which has a loopback interface only.  ``notify`` is told each
    stage, by the names that criu(8) has for action scripts, and the root's pid as soon as there is one.  What allowed
    the checkpoint something (``tcp_established``, ``file_locks``, ``link_remap``, ...) may be said again.  ``ahead``:
    who has memory of it already (:mod:`torpor.engine.restore.ahead`), and stays the caller's.
    ``later``: who brings what is not in the images (:mod:`torpor.migrate.behind`), and stays the caller's, too.

    ``verify``: images that are not as they were written are refused.

    ``lazy``: it runs at once, and private memory comes from the directory behind it, by a process of ours that stays
    until all is there, and whose death is the tree's.  ``template`` (``torpor.engine.restore.template.Template``, to be
    closed) holds the memory that all restores of the same images share that are given it.

    Images may come from strangers: mounts of the host at other places than the host has them, file systems that show or
    change the whole machine, consoles and serial lines, security labels, precedence over others (real-time scheduling
    and the like), set-uid files and devices in a tmpfs are refused unless ``trust`` allows them.

    ``file_validation``: ``filesize`` takes files of the same size for the same.  ``rewind_files`` is asked, with name,
    size and former size, whether a file that has grown may be cut to what it was.

    torpor.base.errors.TorporError and its kinds; nothing is left of a restore that failed.
    """
    from torpor.engine.option_table import of_arguments
    from torpor.engine.options import STRANGERS, RestoreOptions, RestorePolicy, nobody, policies_of
    from torpor.engine.restore import run as engine
    from torpor.objects.cgroup.model import CgroupPolicy

    told = of_arguments(
        leave_stopped=leave_stopped,
        sibling=sibling,
        inherit_fds=inherit_fds,
        new_network=new_network,
        verify=verify,
        shell_job=shell_job,
        tcp_established=tcp_established,
        tcp_close=tcp_close,
        file_locks=file_locks,
        link_remap=link_remap,
        external_unix=external_unix,
        external_pipes=external_pipes,
        external=(*external, "mnt[]") if trust else external,
        enable_fs=("all",) if trust else (),
        trust=trust,
        file_validation=file_validation,
        rewind_files=rewind_files,
    )
    options = RestoreOptions(
        renames=renames,
        notify=notify or nobody,
        ahead=ahead,
        policies=policies_of(told),
        cgroups=CgroupPolicy(**told["cgroups"]),
        policy=RestorePolicy() if trust else STRANGERS,
        template=template,
        **told["restore"],
    )
    from torpor.engine.destination import opened

    with opened(path) as images:
        if not lazy and later is None:
            return engine.restore(images, options)
        from torpor.base.records import replace

        if later is not None:
            return engine.restore(images, replace(options, later=later, notify=later.noting(options.notify)))
        from torpor.migrate.behind import Behind

        with Behind(images, verify=verify) as behind:
            return engine.restore(images, replace(options, later=behind, notify=behind.noting(options.notify)))


_OF_DUMP_ONLY = {
    "leave_running",
    "leave_stopped",
    "timeout_s",
    "made_by",
    "commit",
    "notes",
    "compress",
    "snapshot",
    "also",
    "last_words",
    "parent",
    "tracker",
    "give",
    "once_more",
}


def examine(
    pid: int,
    *,
    ghost_limit: int = 64 << 20,
    link_remap: bool = False,
    file_locks: bool = True,
    shell_job: bool = False,
    tcp_established: bool = False,
    tcp_close: bool = False,
    external_unix: bool = False,
    external_pipes: bool = False,
    external: tuple[str, ...] = (),
    exec_processes: str = "refuse",
    own_session: bool = True,
    **others: object,
) -> Findings:
    """What a dump with the same arguments would refuse, and what would be lost by it, found without touching *pid*.

    Arguments that have no bearing on that (``leave_running``) are passed over.
    """
    from torpor.engine.dump import preflight

    if unknown := others.keys() - _OF_DUMP_ONLY:
        raise TypeError(f"examine() got unexpected arguments: {', '.join(sorted(unknown))}")
    options = _dump_options(
        exec_processes=exec_processes,
        own_session=own_session and not shell_job,
        ghost_limit=ghost_limit,
        link_remap=link_remap,
        file_locks=file_locks,
        shell_job=shell_job,
        tcp_established=tcp_established,
        tcp_close=tcp_close,
        external_unix=external_unix,
        external_pipes=external_pipes,
        external=external,
    )
    return preflight.examine(pid, options)


def problems(pid: int, **arguments: object) -> list[TorporError]:
    """What would stop *pid* and everything below it from being checkpointed, found without stopping or touching it.

    *arguments*: as of :func:`dump`.
    """
    return list(examine(pid, **arguments).problems)  # type: ignore[arg-type]


def _dump_options(
    *,
    made_by: str = "",
    commit: Callable[[str], None] | None = None,
    notes: tuple[tuple[str, bytes], ...] = (),
    also: ImageStore | None = None,
    last_words: tuple[tuple[int, bytes], ...] = (),
    tracker: Tracker | None = None,
    **arguments: object,
) -> DumpOptions:
    from torpor.engine.option_table import of_arguments
    from torpor.engine.options import DumpOptions, nothing, policies_of
    from torpor.objects.cgroup.model import CgroupPolicy

    told = of_arguments(**arguments)
    return DumpOptions(
        made_by=made_by,
        owns_directory=True,
        commit=commit or nothing,
        notes=notes,
        also=also,
        last_words=last_words,
        tracker=tracker,
        policies=policies_of(told),
        cgroups=CgroupPolicy(**told["cgroups"]),
        **told["dump"],
    )


def __getattr__(name: str) -> object:
    if name == "Checkpoint":
        from torpor.engine.sets.contents import Checkpoint

        return Checkpoint
    if name == "Findings":
        from torpor.engine.dump.preflight import Findings

        return Findings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
