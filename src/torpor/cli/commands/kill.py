"""``torpor kill``: end a job, or forget one that has ended or sleeps."""

from __future__ import annotations

import argparse
import signal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the description, the arguments and the options of ``torpor kill``."""
    parser.description = (
        "End a job: SIGTERM, and SIGKILL if it has not ended after a while (at once if it has no handler, since the "
        "first process of a pid namespace does not get such signals)."
    )
    parser.add_argument("-s", "--signal", default="TERM", help="another signal than TERM to begin with")
    parser.add_argument("-t", "--time", type=float, default=10.0, metavar="SEC", help="how long to wait (default 10)")
    parser.add_argument("--remove", action="store_true", help="forget it and its log, too; its checkpoints stay")
    parser.add_argument("names", nargs="+", metavar="NAME")


def main(args: argparse.Namespace) -> int:
    """End the jobs named, and with --remove forget them; 0.  JobError where there is none, or it is in use."""
    from torpor.base.errors import JobError
    from torpor.cli.telling import tell
    from torpor.engine import jobs

    number = _number(args.signal)
    for name in args.names:
        job = jobs.find(name)
        if job.status == jobs.RUNNING:
            job = jobs.kill(job, number, timeout_s=args.time)
        elif doing := jobs.locks.holder(name):
            raise JobError(f"{name} is being {doing}", hint="wait until that is over")
        elif not args.remove:
            tell(f"{name} is not running ({job.status})")
        if args.remove:
            with jobs.locks.held(name, "removed"):
                jobs.remove(job)
            if kept := jobs.generations.list_of(name):
                labels = ", ".join(each.label for each in kept)
                tell(f"{name}: kept {labels} (torpor rm --all {name} removes what is left)")
    return 0


def _number(text: str) -> int:
    from torpor.base.errors import UsageError

    if text.isdigit() and 0 < int(text) < signal.NSIG:
        return int(text)
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    try:
        return int(signal.Signals[name])
    except KeyError:
        raise UsageError(f"{text} is no signal") from None
