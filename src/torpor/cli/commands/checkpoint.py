"""``torpor checkpoint``: put a process or job to sleep in files."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.description = (
        "Write a process and everything below it into files and end it. If that fails, everything runs on as before."
    )
    parser.add_argument("target", metavar="PID|NAME", help="a process's id, or a job's name")
    parser.add_argument("-o", "--output", metavar="PATH", help="directory for the checkpoint (default: the job's own)")
    parser.add_argument("--leave-running", action="store_true", help="the process goes on after the checkpoint")
    parser.add_argument("--shell-job", action="store_true", help="the process belongs to a terminal's session")
    parser.add_argument("--tcp-established", action="store_true", help="keep TCP connections")
    parser.add_argument("--tcp-close", action="store_true", help="TCP connections will be found closed")
    parser.add_argument("--link-remap", action="store_true", help="link deleted but hard-linked files into their place")
    parser.add_argument("--external-unix", action="store_true", help="unix sockets may lead to other processes")
    parser.add_argument(
        "--ghost-limit",
        type=int,
        default=64,
        metavar="MIB",
        help="deleted files to keep (default: %(default)s MiB)",
    )


def main(args: argparse.Namespace) -> int:
    """Do it, and say what came of it."""
    import torpor
    from torpor.base.errors import UsageError
    from torpor.cli.progress import Progress, size, time_of
    from torpor.engine import jobs
    from torpor.engine.checkpoint import Checkpoint

    if args.target.isdigit():
        pid = int(args.target)
        job = jobs.find_by_pid(pid)
    else:
        job = jobs.find(args.target)
        pid = job.pid
        if job.status != jobs.RUNNING:
            raise UsageError(f"{job.name} does not run", hint="`torpor ps -a` shows what it does")
    if args.output is None and job is None:
        raise UsageError("torpor checkpoint: where to?", hint="-o PATH names a directory for the checkpoint")
    path = Path(args.output) if args.output else job_directory(job)
    with Progress(f"checkpointing {args.target}", path) as progress:
        stats = torpor.dump(
            pid,
            path,
            leave_running=args.leave_running,
            shell_job=args.shell_job,
            tcp_established=args.tcp_established,
            tcp_close=args.tcp_close,
            link_remap=args.link_remap,
            external_unix=args.external_unix,
            ghost_limit=args.ghost_limit << 20,
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


def job_directory(job: object) -> Path:
    """Where a job's checkpoint goes if nobody names a place."""
    from torpor.engine.jobs import Job

    assert isinstance(job, Job)
    return job.directory / "checkpoint"
