"""``torpor restore``: wake what sleeps in files."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.description = (
        "Rebuild the processes of a checkpoint. They run when this returns, unless -w waits for their end. "
        "If that fails, nothing is left of them."
    )
    parser.add_argument("source", metavar="PATH|NAME", help="a checkpoint's directory, or a job's name")
    parser.add_argument("--name", help="restore a job as a copy with this name")
    parser.add_argument(
        "--new-network",
        action="store_true",
        help="in a network of its own, with loopback only: all ports are free there",
    )
    parser.add_argument("-d", "--detach", action="store_true", help="return once it runs (the default)")
    parser.add_argument("-w", "--wait", action="store_true", help="wait for the end; exit as the root process does")
    parser.add_argument("--shell-job", action="store_true", help="the processes belong to this terminal's session")
    parser.add_argument("--tcp-close", action="store_true", help="TCP connections will be found closed")


def main(args: argparse.Namespace) -> int:
    """Do it, and say what came of it."""
    import torpor
    from torpor.base.errors import UsageError
    from torpor.cli.progress import Progress, time_of
    from torpor.engine import jobs

    is_path = "/" in args.source or Path(args.source, "inventory.img").exists()
    job = None if is_path else jobs.find(args.source)
    path = Path(args.source) if job is None else job.images_directory
    if job is not None and job.status == jobs.RUNNING and not args.name:
        raise UsageError(f"{job.name} runs already", hint="--name makes a copy beside it")
    if job is None and args.name:
        raise UsageError("--name is for jobs", hint="a job's name instead of a path")
    if job is not None and args.name:
        job = jobs.prepare_copy(job, args.name)
    try:
        with Progress(f"restoring {args.source}") as progress:
            pid = torpor.restore(
                path,
                shell_job=args.shell_job,
                tcp_close=args.tcp_close,
                renames=jobs.renames(job) if job is not None else (),
                new_network=args.new_network,
            )
    except BaseException:
        if job is not None and args.name:
            jobs.discard(job)
        raise
    if job is not None:
        jobs.restored(job, pid)
    print(f"{job.name if job else args.source}: pid {pid}, after {time_of(progress.seconds)}")
    if not args.wait:
        return 0
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code
