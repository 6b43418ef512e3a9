"""``torpor migrate``: move a process, a job or a container to another host."""

from __future__ import annotations

import argparse
import json
import sys

from torpor.base.typed import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torpor.cli.side_by_side import Outcome
    from torpor.containers.names import Target
    from torpor.migrate.rounds import Round
    from torpor.migrate.source import Moved, Wishes
    from torpor.migrate.way import Destination


#: Options for processes that Podman has as well.
_SHARED = ("tcp-established", "file-locks")
_MOST_AT_A_TIME = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the description, the arguments and the options of ``torpor migrate``."""
    from torpor.cli import process_options

    parser.description = (
        "Move a process and everything below it, a job, a container of Podman or runc, or a pod of Podman as a whole "
        "(pod:NAME) to another host, which is reached by ssh and has torpor as well. Nothing is stopped before the "
        "other host has agreed. Until it has rebuilt everything, any failure, Ctrl-C included, lets it run on here; "
        "afterwards it runs there, and never again here by itself. A container keeps its open connections, which live "
        "on where its address moves along."
    )
    parser.add_argument(
        "words", nargs="+", metavar="PID|NAME... [ssh://][USER@]HOST[:PORT]",
        help="processes' ids, names of jobs, containers or (pod:NAME) pods, and last where to",
    )  # fmt: skip
    parser.add_argument(
        "--all", action="store_true",
        help="all jobs, containers and pods of Podman that run here; who cannot be moved runs on here",
    )  # fmt: skip
    parser.add_argument(
        "--parallel", type=int, default=1, metavar="N",
        help="so many of several at a time (default: 1), which share --bandwidth; nothing is asked then",
    )  # fmt: skip
    parser.add_argument("--name", help="what the job or container is called there (default: as here)")
    parser.add_argument("--dry-run", action="store_true", help="ask both hosts what stands in the way, and no more")
    parser.add_argument("--keep-source", action="store_true", help="keep the images here, where a restore finds them")
    parser.add_argument(
        "--persist", metavar="DIR", default="",
        help="keep a copy of the last images in DIR, a new directory: DIR/images is what it was when it was stopped",
    )  # fmt: skip
    parser.add_argument("--rsh", metavar="COMMAND", default="", help="instead of ssh (also $TORPOR_RSH)")
    parser.add_argument(
        "--remote-torpor", metavar="PATH", default="torpor", help="the command there (default: torpor, by PATH)"
    )
    parser.add_argument(
        "--trust", action="store_true",
        help="have the other host allow what it refuses of strangers' checkpoints (as torpor restore --trust)",
    )  # fmt: skip
    parser.add_argument(
        "--via", choices=("tls", "ssh"), default="tls",
        help="how data go: by connections of their own (the default) to a port that the other host opens for them, or, "
        "where that is not to be reached, or always, through ssh, as what is said does",
    )  # fmt: skip
    parser.add_argument("--connections", type=int, default=2, metavar="N", help="so many of them (default: 2)")
    parser.add_argument(
        "--compress", choices=("none", "zstd", "lz4"), default="none",
        help="what is sent (default: none); lz4, which is quicker, needs the package lz4 on both hosts",
    )  # fmt: skip
    parser.add_argument("--bandwidth", metavar="MBIT", type=float, default=0, help="send no more than so many Mbit/s")
    parser.add_argument(
        "--downtime", metavar="TIME", default="100ms",
        help="how long it may be stopped: when what is left would take no longer, it is (100ms, 2s; default: 100ms)",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=int, default=8, metavar="N",
        help="at most so many rounds over its memory while it runs (default: 8; 0: it is stopped at once)",
    )  # fmt: skip
    parser.add_argument("--timeout", metavar="TIME", default="0", help="so long may they take (default: for ever)")
    parser.add_argument(
        "--on-timeout", choices=("stop", "cancel", "post-copy"), default="stop",
        help="then stop it and send the rest (the default), or give up and let it run on here (and until then do not "
        "stop it for longer than --downtime, whatever --rounds says), or send the rest when it runs there",
    )  # fmt: skip
    parser.add_argument(
        "--post-copy", choices=("never", "auto", "now"), default="auto",
        help="whether it may run there before all of its memory has gone, which then comes as it is touched, and in "
        "the background: never, if the rounds do not come to --downtime (auto, the default, for jobs and processes), "
        "or at once, without rounds. From then on it needs both hosts until all has gone",
    )  # fmt: skip
    parser.add_argument(
        "--volumes", choices=("copy", "shared"), default="",
        help="of a container: they are copied, into new ones of the same names, or the other host has the same ones "
        "already, and directories of the host's as well (default: a container that has any is refused)",
    )  # fmt: skip
    parser.add_argument(
        "--bundle", metavar="PATH", default="",
        help="of a container of runc: where its bundle is on the other host (default: where it is here)",
    )  # fmt: skip
    parser.add_argument("--engine", help="podman, runc; job, pid: what the name means")
    parser.add_argument("--json", action="store_true", help="what came of it, as JSON")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask before something is lost")
    process_options.add(parser, process_options.CHECK)


def main(args: argparse.Namespace) -> int:
    """Move what was named, one after the other, and say what came of it; the exit code of the first that was not."""
    from torpor.base.errors import UsageError
    from torpor.cli.telling import tell
    from torpor.migrate import source, way

    where = way.destination(args.words[-1])
    wanted = args.words[:-1]
    if args.all == bool(wanted):
        raise UsageError("torpor migrate: what to move, and where to?", hint="PID|NAME... HOST, or --all HOST")
    if not 1 <= args.connections <= 16 or args.bandwidth < 0:
        raise UsageError("--connections is 1 to 16, and --bandwidth no less than 0")
    if not 1 <= args.parallel <= _MOST_AT_A_TIME:
        raise UsageError(f"--parallel is 1 to {_MOST_AT_A_TIME}")
    source.check(_wishes(args))
    wanted = wanted or _all()
    args.parallel = max(1, min(args.parallel, len(wanted)))
    if (args.name or args.persist) and len(wanted) != 1:
        raise UsageError("--name and --persist are for one")
    if len(wanted) == 1:
        moved = _migrate_one(args, wanted[0], where)
        if args.json:
            tell(json.dumps(_fields(moved), indent=1))
        return 0
    return _report(args, wanted, _several(args, wanted, where), where)


def _several(args: argparse.Namespace, wanted: list[str], where: Destination) -> dict[str, Outcome]:
    """What came of each that had its turn."""
    from torpor.base.errors import TorporError
    from torpor.cli import side_by_side
    from torpor.cli.telling import tell

    def work(word: str) -> object:
        try:
            return _fields(_migrate_one(args, word, where))
        except TorporError as error:
            tell(f"torpor: {word}: {error.describe()}", sys.stderr)
            raise

    return side_by_side.run(wanted, args.parallel, work)


def _report(args: argparse.Namespace, wanted: list[str], came: dict[str, Outcome], where: Destination) -> int:
    """Say it at the end; the exit code of the first that was not moved."""
    from torpor.cli.progress import size, time_of
    from torpor.cli.telling import tell

    not_begun = (None, "not begun: it runs on here", 130)
    every = [(word, came.get(word, not_begun)) for word in wanted]
    failed = [code for _, (_, _, code) in every if code]
    if args.json:
        told = []
        for word, (value, error, code) in every:
            fields = value if isinstance(value, dict) else {}
            told.append({"what": word, **fields, **({"error": error, "exit_code": code} if code else {})})
        tell(json.dumps(told, indent=1))
        return failed[0] if failed else 0
    width = max(len(word) for word in wanted)
    for word, (value, error, code) in every:
        if code:
            tell(f"{word:{width}}  NOT MOVED: {error}")
        elif isinstance(value, dict) and value:
            downtime, total = time_of(value["downtime_s"]), time_of(value["total_s"])
            tell(f"{word:{width}}  stopped for {downtime}, {total} in all, {size(value['sent_bytes'])} sent")
    tell(f"{len(wanted) - len(failed)} of {len(wanted)} {'can be' if args.dry_run else 'have been'} moved to {where}")
    return failed[0] if failed else 0


def _fields(moved: Moved | None) -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(moved) if moved is not None else {}


def _all() -> list[str]:
    """What runs here and has a name; a pod as a whole."""
    from torpor.containers import pods
    from torpor.containers.names import PODMAN
    from torpor.engine import jobs

    found = [f"job:{job.name}" for job in jobs.list_jobs() if job.status == jobs.RUNNING]
    found += [container.label for container in PODMAN.containers() if container.runs and not container.pod]
    return found + [f"{pods.PREFIX}{name}" for name in pods.names()]


def _pod_of(word: str, engine: str | None) -> str:
    """The name of the pod that *word* means, ``pod:NAME`` or ``podman:NAME``; "" where it means something else."""
    from torpor.containers import pods

    prefix, _, name = (word if ":" in word or not engine else f"{engine}:{word}").partition(":")
    # Podman gives no container the name of a pod.
    return name if prefix == "pod" or (prefix == "podman" and name in pods.names()) else ""


def _migrate_pod(args: argparse.Namespace, name: str, where: Destination) -> Moved | None:
    from torpor.base.errors import UsageError
    from torpor.cli import container_options, process_options
    from torpor.containers import moving_pod, pods
    from torpor.containers.names import PODMAN

    of_processes = [each for each in process_options.names(process_options.CHECK) if each not in _SHARED]
    container_options.refuse(args, tuple(of_processes), "a pod of podman")
    if args.bundle:
        raise UsageError("--bundle is for containers of runc")
    pod = pods.find(name, PODMAN.containers())
    words = container_options.given(args, _SHARED)
    moved = moving_pod.migrate(pod, where, _wishes(args), words, args.volumes)
    if not args.json:
        _tell(pod.label, where, moved)
    return moved


def _migrate_one(args: argparse.Namespace, word: str, where: Destination) -> Moved | None:
    from torpor.base.errors import UsageError
    from torpor.cli import container_options, process_options
    from torpor.cli.commands.check import insist
    from torpor.cli.telling import tell
    from torpor.containers import moving, names
    from torpor.migrate import source

    if pod := _pod_of(word, args.engine):
        return _migrate_pod(args, pod, where)
    target = names.resolve(word, args.engine)
    _refuse_others(target)
    container = target.container
    if args.name and target.job is None and container is None:
        raise UsageError("--name is for jobs and containers")
    if container is None:
        told = process_options.keywords(args, process_options.CHECK)
        for chance in insist(target, told, may_ask=not args.yes and args.parallel == 1).chances:
            tell(f"{word}: may be in the way when it is stopped: {chance}", sys.stderr)
        moved = source.migrate(target.pid, target.job, where, _wishes(args))
    else:
        of_processes = [name for name in process_options.names(process_options.CHECK) if name not in _SHARED]
        container_options.refuse(args, tuple(of_processes), f"a container of {container.engine}")
        if container.engine == "runc" and args.volumes:
            raise UsageError("--volumes is for containers of podman: what a bundle mounts is on both hosts")
        if container.engine != "runc" and args.bundle:
            raise UsageError("--bundle is for containers of runc")
        words = container_options.given(args, _SHARED)
        moved = moving.migrate(container, where, _wishes(args), words, args.volumes, args.bundle)
    if not args.json:
        _tell(word, where, moved)
    return moved


def _wishes(args: argparse.Namespace) -> Wishes:
    from torpor.cli import process_options
    from torpor.migrate import rounds, source

    aim = rounds.Aim(_seconds(args.downtime), args.rounds, _seconds(args.timeout), args.on_timeout)
    tell = (lambda made: None) if args.json else _tell_round
    return source.Wishes(
        args.name or "", args.rsh, args.remote_torpor, args.trust, args.dry_run, args.keep_source,
        args.via == "ssh", args.connections, args.compress, int(args.bandwidth * 125_000 / args.parallel),
        args.post_copy, aim, tell,
        process_options.keywords(args, process_options.CHECK), args.persist,
    )  # fmt: skip


def _seconds(text: str) -> float:
    """``100ms``, ``2s``, ``1.5``."""
    from torpor.base.errors import UsageError

    for suffix, unit in (("ms", 0.001), ("min", 60.0), ("s", 1.0), ("", 1.0)):
        if text.endswith(suffix):
            try:
                found = float(text.removesuffix(suffix)) * unit
            except ValueError:
                break
            if 0 <= found < 1e9:
                return found
            break
    raise UsageError(f"{text!r} is no time", hint="100ms, 2s, 5min")


def _tell_round(made: Round) -> None:
    """What one came to, for whoever waits at a terminal."""
    from torpor.cli.progress import size, time_of
    from torpor.cli.telling import tell

    if sys.stderr.isatty():
        written = f", {made.dirty_bytes_s / 1e6:.0f} MB/s are written" if made.number > 1 else ""
        tell(
            f"round {made.number}: {size(made.n_bytes)} in {time_of(made.seconds)} "
            f"({made.n_bytes / made.seconds / 1e6:.0f} MB/s){written}; the rest would take {time_of(made.rest_s)}",
            sys.stderr,
        )


def _refuse_others(target: Target) -> None:
    from torpor.base.errors import UsageError

    container = target.container
    if container is not None and container.engine not in ("podman", "runc"):
        raise UsageError(
            f"{target.label}: containers of {container.engine} are not migrated yet",
            hint="torpor checkpoint NAME -o DIRECTORY, and torpor restore DIRECTORY on the other host",
        )
    if container is not None and not container.runs:
        raise UsageError(f"{target.label} does not run ({container.state})")
    if target.unit is not None:
        target.unit.insist_it_stays_ended()
    if not target.pid:
        raise UsageError(f"{target.label} does not run", hint="`torpor ps -a` shows what it does")


def _tell(word: str, where: Destination, moved: Moved | None) -> None:
    from torpor.cli.progress import size, time_of
    from torpor.cli.telling import tell

    if moved is None:
        tell(f"{word}: nothing stands in the way, here or on {where}")
        return
    n_processes = "1 process" if moved.n_processes == 1 else f"{moved.n_processes} processes"
    kept = f"; its images are in {moved.kept}" if moved.kept else ""
    later = f" ({size(moved.later_bytes)} of it when it ran there)" if moved.later_bytes else ""
    n_rounds = f" in {len(moved.rounds) + 1} rounds" if moved.rounds else ""
    tell(
        f"{word}: {moved.name} runs on {moved.host} with pid {moved.pid}; {n_processes}, {size(moved.sent_bytes)} "
        f"sent{n_rounds}{later}, {time_of(moved.total_s)} in all, stopped for {time_of(moved.downtime_s)}{kept}"
    )
