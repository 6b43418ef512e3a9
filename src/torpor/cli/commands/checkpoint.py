"""``torpor checkpoint``: put a process, a job or a container to sleep in files."""

from __future__ import annotations

import argparse
from pathlib import Path

from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.containers.model import Container
    from torpor.containers.names import Target
    from torpor.engine.stats import DumpStats

GHOST_LIMIT_MIB = 64
EXEC_PROCESSES = (
    "what becomes of processes that entered the pid namespace from outside, as with podman exec: nothing is done while "
    "there are any (refuse, the default), they are taken along, or left out and lost"
)
#: What both processes and containers can have, and what only processes can.
_SHARED = ("leave-running", "tcp-established", "link-remap", "shell-job", "external-unix")
_OF_PROCESSES = ("tcp-close", "external-pipes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    from torpor.cli import container_options

    parser.description = (
        "Write a process and everything below it, or a container, into files and end it. If that fails, everything "
        "runs on as before. A container is checkpointed by its own engine, which calls criu: see torpor setup."
    )
    parser.add_argument(
        "target", metavar="PID|NAME", help="a process's id, a job's or a container's name, or ENGINE:NAME"
    )
    parser.add_argument(
        "-o", "--output", metavar="PATH",
        help="directory for the checkpoint, or one file: FILE.tar.zst, FILE.tar.gz, FILE.tar "
        "(default: the job's own, NAME@1, NAME@2, ...; the engine's own)",
    )  # fmt: skip
    parser.add_argument("--engine", help="podman, docker, containerd, lxc, runc, crun; job, pid")
    parser.add_argument("--leave-running", action="store_true", help="it goes on after the checkpoint")
    parser.add_argument("--shell-job", action="store_true", help="the process belongs to a terminal's session")
    parser.add_argument("--tcp-established", action="store_true", help="keep TCP connections")
    parser.add_argument("--tcp-close", action="store_true", help="TCP connections will be found closed")
    parser.add_argument("--link-remap", action="store_true", help="link deleted but hard-linked files into their place")
    parser.add_argument("--external-unix", action="store_true", help="unix sockets may lead to other processes")
    parser.add_argument(
        "--external-pipes", action="store_true",
        help="pipes may lead to other processes; nobody is at their other end after the restore",
    )  # fmt: skip
    parser.add_argument(
        "--ghost-limit", type=int, metavar="MIB", help=f"deleted files to keep (default: {GHOST_LIMIT_MIB} MiB)"
    )
    parser.add_argument(
        "--exec-processes", choices=("refuse", "carry", "leave-out"), default="refuse", help=EXEC_PROCESSES
    )
    container_options.add(parser, container_options.CHECKPOINT)


def main(args: argparse.Namespace) -> int:
    """Do it, and say what came of it."""
    from torpor.containers import names

    target = names.resolve(args.target, args.engine)
    if target.container is not None:
        return _checkpoint_container(target.container, args)
    return _checkpoint_process(target, args)


def _checkpoint_container(container: Container, args: argparse.Namespace) -> int:
    from torpor.base.errors import UsageError
    from torpor.cli import container_options
    from torpor.cli.progress import Progress, size, time_of
    from torpor.containers import names

    container_options.refuse(args, (*_OF_PROCESSES, "ghost-limit"), f"a container of {container.engine}")
    if not container.runs:
        raise UsageError(f"{container.label} does not run ({container.state})")
    output = Path(args.output) if args.output else None
    words = container_options.given(args, (*_SHARED, *container_options.CHECKPOINT))
    with Progress(f"checkpointing {container.label}") as progress:
        made = names.ENGINES[container.engine].checkpoint(container, output, words)
    amount = f" ({size(output.stat().st_size)})" if output is not None and output.is_file() else ""
    print(f"{container.label}: in {made}{amount}, after {time_of(progress.seconds)}")
    return 0


def _checkpoint_process(target: Target, args: argparse.Namespace) -> int:
    from torpor.base.errors import UsageError
    from torpor.cli import container_options
    from torpor.cli.progress import Progress, size, time_of
    from torpor.engine import jobs
    from torpor.engine.destination import going_to

    container_options.refuse(args, container_options.CHECKPOINT, "a process or a job")
    job = target.job
    if job is not None and not target.pid:
        raise UsageError(f"{job.name} does not run", hint="`torpor ps -a` shows what it does")
    if args.output is None and job is None:
        raise UsageError("torpor checkpoint: where to?", hint="-o PATH names a directory or an archive for it")
    output = Path(args.output) if args.output else None
    with Progress(f"checkpointing {args.target}", output) as progress:
        if job is not None:
            made = jobs.checkpoint(
                job, lambda path, commit: _dump(job.pid, path, commit, args),
                output=output, leave_running=args.leave_running, by="torpor checkpoint",
            )  # fmt: skip
            stats, label, where = made.stats, f"{job.name}@{made.number}", made.place
        else:
            assert output is not None
            with going_to(output) as (room, finish):
                stats, label, where = _dump(target.pid, room, finish, args), args.target, output
    n_processes = stats.n_processes if stats is not None else 0
    stopped = f", stopped for {time_of(stats.watch.us.get('frozen', 0) / 1e6)}" if stats is not None else ""
    processes = "1 process" if n_processes == 1 else f"{n_processes} processes"
    amount = size(_size_of(where))
    print(f"{label}: {processes}, {amount} in {where}; {time_of(progress.seconds)} in all{stopped}")
    return 0


def _dump(pid: int, path: Path, commit: Callable[[], None], args: argparse.Namespace) -> DumpStats:
    import torpor

    return torpor.dump(
        pid,
        path,
        made_by="torpor checkpoint",
        leave_running=args.leave_running,
        shell_job=args.shell_job,
        tcp_established=args.tcp_established,
        tcp_close=args.tcp_close,
        link_remap=args.link_remap,
        external_unix=args.external_unix,
        external_pipes=args.external_pipes,
        exec_processes=args.exec_processes,
        ghost_limit=(GHOST_LIMIT_MIB if args.ghost_limit is None else args.ghost_limit) << 20,
        commit=commit,
    )


def _size_of(path: Path) -> int:
    from torpor.engine.checkpoint import Checkpoint

    if path.is_file():
        return path.stat().st_size
    with Checkpoint(path) as made:
        return made.size_bytes
