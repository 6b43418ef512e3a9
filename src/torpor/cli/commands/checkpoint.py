"""``torpor checkpoint``: put a process, a job or a container to sleep in files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from torpor.containers.model import Container
    from torpor.containers.names import Target
    from torpor.engine.stats import DumpStats
    from torpor.images.stores.opening import Location

#: Options for processes that containers can have as well: their engine is told.
_SHARED = ("leave-running", "tcp-established", "file-locks", "link-remap", "shell-job", "external-unix")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the description, the arguments and the options of ``torpor checkpoint``."""
    from torpor.cli import container_options, process_options

    parser.description = (
        "Write a process and everything below it, or a container, into files and end it. If that fails, everything "
        "runs on as before. A container is checkpointed by its own engine, which calls criu: see torpor setup."
    )
    parser.add_argument(
        "target",
        metavar="PID|NAME",
        help="a process's id, a job's or a container's name, ENGINE:NAME, or a unit of systemd, UNIT.service or "
        "UNIT.scope",
    )
    parser.add_argument(
        "-o", "--output", metavar="PATH",
        help="directory for the checkpoint, or one file: FILE.tar.zst, FILE.tar.gz, FILE.tar; - for standard output "
        "(default: the job's own, NAME@1, NAME@2, ...; the engine's own)",
    )  # fmt: skip
    parser.add_argument("--engine", help="podman, docker, containerd, lxc, runc, crun; job, pid")
    parser.add_argument("--json", action="store_true", help="what came of it, as JSON")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask before something is lost")
    process_options.add(parser, process_options.CHECKPOINT)
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
    from torpor.cli import container_options, process_options
    from torpor.cli.progress import Progress, size, time_of
    from torpor.cli.telling import tell
    from torpor.containers import names, one_file
    from torpor.images.stores.opening import is_stream

    of_processes = [name for name in process_options.names(process_options.CHECKPOINT) if name not in _SHARED]
    container_options.refuse(args, tuple(of_processes), f"a container of {container.engine}")
    if not container.runs:
        raise UsageError(f"{container.label} does not run ({container.state})")
    output = Path(args.output) if args.output else None
    if output is not None and is_stream(output):
        raise UsageError("a stream is for processes and jobs", hint="-o FILE.tar.zst, and send that")
    words = container_options.given(args, (*_SHARED, *container_options.CHECKPOINT))
    with Progress(f"checkpointing {container.label}") as progress:
        engine = names.ENGINES[container.engine]
        if output is not None and one_file.is_wanted(container, output):
            made = one_file.checkpoint(engine, container, output, words)
        else:
            made = engine.checkpoint(container, output, words)
    n_bytes = output.stat().st_size if output is not None and output.is_file() else None
    if args.json:
        _print_json({"target": container.label, "in": made, "size_bytes": n_bytes, "seconds": progress.seconds})
        return 0
    amount = f" ({size(n_bytes)})" if n_bytes is not None else ""
    tell(f"{container.label}: in {made}{amount}, after {time_of(progress.seconds)}")
    return 0


def _checkpoint_process(target: Target, args: argparse.Namespace) -> int:
    from torpor.base.errors import UsageError
    from torpor.cli import container_options, process_options
    from torpor.cli.commands.check import insist
    from torpor.cli.progress import Progress, is_stopped, memory_of_tree, size, time_of
    from torpor.cli.telling import tell
    from torpor.engine import jobs
    from torpor.engine.destination import going_to

    of_containers = tuple(name for name in container_options.CHECKPOINT if name != "compress")
    container_options.refuse(args, of_containers, "a process or a job")
    if args.compress not in (None, "none", "zstd"):
        raise UsageError(f"--compress {args.compress}: the memory of processes is compressed by zstd, or not (none)")
    job = target.job
    if target.unit is not None and not args.leave_running:
        target.unit.insist_it_stays_ended()
    if job is not None and not target.pid:
        raise UsageError(f"{job.name} does not run", hint="`torpor ps -a` shows what it does")
    if args.output is None and job is None:
        raise UsageError("torpor checkpoint: where to?", hint="-o PATH names a directory or an archive for it")
    output = Path(args.output) if args.output else None
    told = process_options.keywords(args, process_options.CHECKPOINT) | {"compress": args.compress == "zstd"}
    insist(target, told, may_ask=not args.yes)
    total = memory_of_tree(target.pid)
    with Progress(f"checkpointing {args.target}", total, stopped=lambda: is_stopped(target.pid)) as progress:
        if job is not None:
            made = jobs.checkpoint(
                job, lambda path, notes, commit: _dump(job.pid, path, notes, commit, told),
                output=output, leave_running=args.leave_running, by="torpor checkpoint",
            )  # fmt: skip
            stats, label, where = made.stats, f"{job.name}@{made.number}", made.place
        else:
            assert output is not None
            with going_to(output, target.pid, leave_running=args.leave_running) as (room, finish):
                stats, label, where = _dump(target.pid, room, (), finish, told), args.target, output
    n_processes = stats.n_processes if stats is not None else 0
    frozen_s = stats.watch.us.get("frozen", 0) / 1e6 if stats is not None else None
    n_bytes = _size_of(where)
    # Standard output may be the stream.
    out = sys.stdout if n_bytes is not None else sys.stderr
    if args.json:
        told_all = {
            "target": label, "processes": n_processes, "in": str(where), "size_bytes": n_bytes,
            "seconds": progress.seconds, "stopped_seconds": frozen_s,
        }  # fmt: skip
        _print_json(told_all, out)
        return 0
    stopped = f", stopped for {time_of(frozen_s)}" if frozen_s is not None else ""
    processes = "1 process" if n_processes == 1 else f"{n_processes} processes"
    amount = f"{processes}, {size(n_bytes)} in {where}" if n_bytes is not None else f"{processes}, all sent"
    tell(f"{label}: {amount}; {time_of(progress.seconds)} in all{stopped}", out)
    return 0


def _print_json(told: dict[str, object], out: TextIO | None = None) -> None:
    import json

    from torpor.cli.telling import tell

    tell(json.dumps(told, indent=1), out)


def _dump(
    pid: int,
    path: Location,
    notes: tuple[tuple[str, bytes], ...],
    commit: Callable[[str], None],
    told: dict[str, object],
) -> DumpStats:
    import torpor

    made_by = "torpor checkpoint"
    return torpor.dump(pid, path, made_by=made_by, notes=notes, commit=commit, **told)  # type: ignore[arg-type]


def _size_of(path: Path) -> int | None:
    """What the checkpoint takes; None where it has gone somewhere else, 0 if it cannot be looked at any more."""
    from contextlib import suppress

    from torpor.base.errors import TorporError
    from torpor.engine.sets.contents import Checkpoint
    from torpor.images.stores.opening import is_stream

    if is_stream(path):
        return None
    # That it is made is certain: somebody may have moved it already.
    with suppress(OSError, TorporError):
        if path.is_file():
            return path.stat().st_size
        with Checkpoint(path) as made:
            return made.size_bytes
    return 0
