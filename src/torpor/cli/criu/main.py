"""Entry of the ``criu`` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from torpor.base import log
from torpor.base.errors import TorporError


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(prog="criu")
    parser.add_argument("action", choices=("dump", "restore"))
    parser.add_argument("-t", "--tree", type=int)
    parser.add_argument("-D", "--images-dir", default=".")
    parser.add_argument("-o", "--log-file")
    parser.add_argument("-v", dest="level", nargs="?", const="1", default="2")
    parser.add_argument("-d", "--restore-detached", action="store_true")
    parser.add_argument("-R", "--leave-running", action="store_true")
    parser.add_argument("--pidfile")
    args = parser.parse_args(argv)
    fd = 2
    if args.log_file:
        path = os.path.join(args.images_dir, args.log_file)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    log.configure(fd=fd, level=int(args.level))
    try:
        _run(args)
    except TorporError as error:
        log.error(error.describe())
        return error.exit_code
    return 0


def _run(args: argparse.Namespace) -> None:
    if args.action == "dump":
        from torpor.engine.dump import dump
        from torpor.engine.options import DumpOptions

        dump(args.tree, args.images_dir, DumpOptions(leave_running=args.leave_running))
        return
    from torpor.engine.restore import restore

    pid = restore(args.images_dir)
    if args.pidfile:
        path = os.path.join(args.images_dir, args.pidfile)
        with open(path, "w", encoding="ascii") as stream:
            stream.write(str(pid))


if __name__ == "__main__":
    sys.exit(main())
