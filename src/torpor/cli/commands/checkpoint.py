"""``torpor checkpoint``: put a process, a job or a container to sleep in files."""

from __future__ import annotations

import argparse
from pathlib import Path

from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.containers.model import Container
    from torpor.containers.names import Target

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
        help="directory for the checkpoint, or podman's archive (default: the job's own, the engine's own)",
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
    import torpor
    from torpor.base.errors import UsageError
    from torpor.cli import container_options
    from torpor.cli.progress import Progress, size, time_of
    from torpor.engine import jobs
    from torpor.engine.checkpoint import Checkpoint

    container_options.refuse(args, container_options.CHECKPOINT, "a process or a job")
    job = target.job
    if job is not None and not target.pid:
        raise UsageError(f"{job.name} does not run", hint="`torpor ps -a` shows what it does")
    if args.output is None and job is None:
        raise UsageError("torpor checkpoint: where to?", hint="-o PATH names a directory for the checkpoint")
    path = Path(args.output) if args.output or job is None else job.directory / "checkpoint"
    with Progress(f"checkpointing {args.target}", path) as progress:
        stats = torpor.dump(
            target.pid,
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
        )
    if job is not None:
        jobs.checkpointed(job, path, left_running=args.leave_running)
    with Checkpoint(path) as made:
        total = made.size_bytes
    processes = "1 process" if stats.n_processes == 1 else f"{stats.n_processes} processes"
    print(
        f"{args.target}: {processes}, {size(total)} in {path}; "
        f"{time_of(progress.seconds)} in all, stopped for {time_of(stats.watch.us.get('frozen', 0) / 1e6)}"
    )
    return 0
