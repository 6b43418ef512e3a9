"""Entry of the ``criu`` command: words to options, the log, the command, and how it all ends.

Start-up is part of what a dump costs, so a command's module is imported when it is asked for; it imports the engine.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from torpor.base import log, utf8
from torpor.base.errors import TorporError, UsageError
from torpor.base.explain import explain
from torpor.base.fds import open_output, open_standard
from torpor.base.typed import NoReturn
from torpor.cli.criu.options import Options
from torpor.cli.criu.parse import parse
from torpor.kernel import interrupts

#: The command, and its module.
COMMANDS = {
    "dump": "dump",
    "pre-dump": "dump",
    "restore": "restore",
    "check": "check",
    "page-server": "page_server",
    "lazy-pages": "lazy_pages",
    "service": "service",
    "swrk": "service",
    "dedup": "dedup",
    "cpuinfo": "cpuinfo",
}


#: The CRIU whose words, messages and images these are.
COMPATIBLE = (4, 2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    interrupts.catch()
    try:
        return _run(words)
    except UsageError as error:
        sys.stderr.write(f"criu: {error.describe()}\n")
        return error.exit_code
    except (Exception, interrupts.Interrupted) as error:
        return report(error)


def report(error: BaseException) -> int:
    """One line in the log about an error of any kind; the exit code."""
    known = explain(error)
    if known is not None:
        stop = interrupts.behind(error)
        before = f"interrupted by signal {stop.number}; on the way back: " if stop else ""
        log.error(f"{before}{known.describe()}", where=_origin(error))
        return 128 + stop.number if stop else known.exit_code
    if isinstance(error, interrupts.Interrupted):
        log.error(f"interrupted by signal {error.number}; nothing was left half done")
        return 128 + error.number
    return _unexpected(error)


def _run(words: list[str]) -> int:
    options, rest = parse(words)
    if options.version:
        return _version()
    if options.help:
        from torpor.cli.criu.usage import text

        sys.stdout.write(text())
        return 0
    if not rest:
        raise UsageError("a command is required", hint="criu --help lists what there is")
    command = rest[0]
    if command not in COMMANDS:
        from torpor.base.nearby import near

        hint = near(command, COMMANDS) or "criu --help lists what there is"
        raise UsageError(f"unknown command {command!r}", hint=hint)
    options.command = rest[1:]
    for fd in options.close:
        os.closerange(fd, fd + 1)
    if command == "check":
        from torpor.cli.criu import check

        return check.main(options)
    if COMMANDS[command] == "service":
        from torpor.cli.criu import service

        return service.swrk(options) if command == "swrk" else service.listen(options)
    check_words(command, options)
    enter(options)
    if command == "cpuinfo":
        from torpor.cli.criu import cpuinfo

        return cpuinfo.main(options)
    if command == "lazy-pages":
        from torpor.cli.criu import lazy_pages

        return lazy_pages.main(options)
    if command == "page-server":
        from torpor.cli.criu import page_server

        return page_server.main(options)
    if command == "dedup":
        from torpor.cli.criu import dedup

        return dedup.main(options)
    if command in ("dump", "pre-dump"):
        from torpor.cli.criu import dump

        dump.run(options, is_pre_dump=command == "pre-dump")
        return 0
    from torpor.cli.criu import restore

    return restore.main(options)


def check_words(command: str, options: Options) -> None:
    """What can be wrong with a command line as a whole."""
    if options.exec_cmd:
        if command != "restore":
            raise UsageError("--exec-cmd is for restore only")
        if not options.command:
            raise UsageError("--exec-cmd needs a command", hint="criu restore --exec-cmd … -- COMMAND")
        if options.restore_detached:
            raise UsageError("--restore-detached and --exec-cmd exclude each other")
    elif options.command and command != "cpuinfo":
        raise UsageError(f"{options.command[0]!r} is too much for criu {command}")
    if command in ("dump", "pre-dump") and not options.tree:
        raise UsageError(f"criu {command} needs to know what to dump", hint="-t PID")
    if options.inherit_fd and command != "restore":
        raise UsageError("--inherit-fd is for restore only")
    if command == "dump" and options.lazy_pages and options.leave_running:
        raise UsageError("--lazy-pages and --leave-running exclude each other: there would be two of each process")
    if options.stream:
        if command not in ("dump", "pre-dump", "restore"):
            raise UsageError(f"--stream is not for criu {command}")
        for name in ("page_server", "lazy_pages", "prev_images_dir"):
            if getattr(options, name):
                raise UsageError(f"--stream and --{name.replace('_', '-')} exclude each other")
    if options.tcp_established and options.tcp_close:
        raise UsageError("--tcp-established and --tcp-close exclude each other")


def enter(options: Options) -> None:
    """Go to the work directory and open the log there."""
    options.images_dir = os.path.abspath(options.images_dir)
    options.work_dir = os.path.abspath(options.work_dir or options.images_dir)
    if not os.path.isdir(options.images_dir):
        raise TorporError(f"{options.images_dir} is no directory", hint="-D names where the images are")
    try:
        os.chdir(options.work_dir)
    except OSError as error:
        raise TorporError(f"work directory {options.work_dir}: {error.strerror}") from None
    fd = 2
    if options.log_file and options.log_file != "-":
        try:
            fd = open_output(options.log_file, os.O_TRUNC | os.O_APPEND)
        except OSError as error:
            raise TorporError(f"log file {options.log_file}: {error.strerror}") from None
    log.configure(fd=fd, level=options.verbosity)


def _version() -> int:
    from torpor import __version__

    # Container runtimes read the first line, and ask for at least 3.something.
    major, minor = COMPATIBLE
    sys.stdout.write(f"Version: {major}.{minor}\nGitID: torpor {__version__}\n")
    return 0


def _unexpected(error: BaseException) -> int:
    """One line; where it happened only for whoever asks for details."""
    notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
    log.error(f"bug: {type(error).__name__}: {error}{notes}", where=_origin(error))
    if log.level() >= log.DEBUG:
        import traceback

        for line in "".join(traceback.format_exception(error)).splitlines():
            log.debug(line)
    return 1


def _origin(error: BaseException) -> str:
    """``file.py:12``, where it was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace else "?"


def command() -> NoReturn:
    """The ``criu`` command as a process of its own.

    It ends without taking the interpreter apart, which would take a twentieth of the time of a small dump, and seldom
    looks for garbage, of which there is little.
    """
    utf8.insist()
    gc.set_threshold(100_000)
    open_standard()  # callers such as LXC start us with some of them closed
    code = main()
    for stream in (sys.stdout, sys.stderr):
        # A reader that has gone away does not make what was done any worse.
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    command()
