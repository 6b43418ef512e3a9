"""``torpor run``: start a command as a job, in namespaces of its own."""

from __future__ import annotations

import argparse
import os
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the description, the arguments and the options of ``torpor run``."""
    parser.description = (
        "Start a command in pid, mount, uts and ipc namespaces of its own, as a job that can be checkpointed and "
        "restored by its name. Its output goes to a log; without -d it is shown until the command ends."
    )
    parser.add_argument("--name", help="how to call the job (default: the command's name)")
    parser.add_argument("-d", "--detach", action="store_true", help="return once the command runs")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD", help="the command and its arguments")


def main(args: argparse.Namespace) -> int:
    """Run; the command's exit status, or 0 with -d."""
    from torpor.base.errors import UsageError
    from torpor.cli.telling import show, tell
    from torpor.engine import jobs
    from torpor.kernel import interrupts

    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise UsageError("torpor run: a command is missing", hint="torpor run [--name N] [-d] -- CMD...")
    job = jobs.start(command, args.name or _free_name(command[0]))
    if args.detach:
        tell(job.name)
        return 0
    try:
        for chunk in jobs.follow_log(job, follow=True):
            show(chunk)
    except interrupts.Interrupted:
        jobs.kill(job)
    job = jobs.wait_ended(job)
    if job.status == jobs.CHECKPOINTED:
        tell(f"{job.name} has been checkpointed", sys.stderr)
        return 0
    if job.exit_status is None:
        return 1
    code = os.waitstatus_to_exitcode(job.exit_status)
    return code if code >= 0 else 128 - code


def _free_name(command: str) -> str:
    """The command's name, with a number behind it if that is in use."""
    import re

    from torpor.engine import jobs

    base = re.sub(r"[^A-Za-z0-9_.-]", "-", os.path.basename(command)).lstrip("_.-")[:50] or "job"
    taken = {job.name for job in jobs.list_jobs() if job.status != jobs.ENDED}
    number = 1
    while (name := base if number == 1 else f"{base}-{number}") in taken:
        number += 1
    return name
