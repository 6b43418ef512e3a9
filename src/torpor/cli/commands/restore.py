"""``torpor restore``: wake what sleeps in files."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from torpor.containers.model import Restored, Words
    from torpor.engine.jobs.generations import Generation
    from torpor.engine.jobs.note import Note
    from torpor.engine.options import Notify
    from torpor.engine.restore.template import Template
    from torpor.images.stores.opening import Location

    Wake = Callable[[], list[Restored]]

#: What only processes and jobs can have.
_OF_PROCESSES = (
    "new-network", "wait", "leave-stopped", "link-remap", "external", "external-pipes", "inherit-fd", "trust",
    "no-verify", "lazy",
)  # fmt: skip
#: Options for processes of which the engine of a container is told.
_SHARED = ("shell-job", "tcp-close", "tcp-established", "file-locks", "external-unix")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the description, the arguments and the options of ``torpor restore``."""
    from torpor.cli import container_options, process_options

    parser.description = (
        "Rebuild the processes of a checkpoint, or a container from one. They run when this returns, unless -w waits "
        "for their end. If that fails, nothing is left of them. A container is restored by its own engine."
    )
    parser.add_argument(
        "source",
        metavar="PATH|NAME",
        help="a checkpoint's directory or archive, - for an archive that comes by standard input, podman's image, a "
        "job (NAME: its newest checkpoint, NAME@2, NAME@TAG), a container that sleeps, or pod:NAME: those of its "
        "containers that do, with the pod's network, if a migration has left that locked",
    )
    parser.add_argument("--engine", help="whose container it is, if the name alone does not tell")
    parser.add_argument("--name", help="restore a job or a container's archive as a copy with this name")
    parser.add_argument(
        "--copies", type=int, default=1, metavar="N",
        help="so many copies side by side, called NAME1, NAME2, ..., each container with an address of its own",
    )  # fmt: skip
    parser.add_argument("-d", "--detach", action="store_true", help="return once it runs (the default)")
    parser.add_argument("-w", "--wait", action="store_true", help="wait for the end; exit as the root process does")
    parser.add_argument("--json", action="store_true", help="what came of it, as JSON")
    process_options.add(parser, process_options.RESTORE)
    container_options.add(parser, container_options.RESTORE)


def main(args: argparse.Namespace) -> int:
    """Do it, and say what came of it."""
    from torpor.base.errors import UsageError
    from torpor.cli import container_options
    from torpor.cli.progress import Progress, time_of
    from torpor.cli.telling import tell

    if args.copies < 1:
        raise UsageError(f"{args.copies} copies cannot be made")
    words = container_options.given(args, (*_SHARED, *container_options.RESTORE))
    source = _source(args, words)
    if not callable(source):
        container_options.refuse(args, container_options.RESTORE, "a process or a job")
        return _restore_processes(args, source)
    container_options.refuse(args, _OF_PROCESSES, "a container")
    with Progress(f"restoring {args.source}") as progress:
        made = source()
    if args.json:
        _print_json([(each.container.label, each.container.pid, each.addresses) for each in made], progress.seconds)
        return 0
    for each in made:
        addresses = f", {', '.join(each.addresses)}" if each.addresses else ""
        tell(f"{each.container.label}: pid {each.container.pid}{addresses}")
    tell(f"after {time_of(progress.seconds)}")
    return 0


def _source(args: argparse.Namespace, words: Words) -> Wake | Generation | Path:
    """What the source is: something that makes containers, a job's checkpoint, or the place of one of processes."""
    from torpor.base.errors import UsageError
    from torpor.containers import note
    from torpor.images import pack
    from torpor.images.stores.opening import is_stream

    path = Path(args.source)
    if is_stream(path):
        return path
    if path.is_file():
        # Imported only here and below: what knows of containers takes longer to import than a small restore.
        from torpor.containers import one_file, waking

        if pack.is_of_container(path):
            return lambda: one_file.restore(path, args.name, args.copies, words)
        if pack.is_ours(path):
            return path
        return lambda: waking.restore_archive(path, args.name, args.copies, words)
    if path.is_dir() and (told := note.read(path)) is not None:
        from torpor.containers import waking

        return lambda: waking.restore_directory(path, told, args.name, args.copies, words)
    if (path / pack.FOLDER / "inventory.img").exists():
        return path / pack.FOLDER
    if path.exists() and ("/" in args.source or (path / "inventory.img").exists()):
        return path
    if args.source.startswith(("/", ".")):
        raise UsageError(f"there is no {path}")
    return _named(args, words)


def _named(args: argparse.Namespace, words: Words) -> Wake | Generation:
    """The same for a name."""
    from torpor.base.errors import AmbiguousNameError, TorporError, UsageError
    from torpor.containers import names, pods, waking
    from torpor.engine.jobs import generations

    if args.source.startswith(pods.PREFIX):
        if args.name or args.copies != 1:
            raise UsageError(f"{args.source} wakes under its own name, once")
        return lambda: waking.restore_pod(args.source.removeprefix(pods.PREFIX), words)
    name, which = generations.split(args.source.removeprefix("job:"))
    if which and args.engine in (None, "job"):
        return generations.find(name, which)
    try:
        target = names.resolve(args.source, args.engine)
    except AmbiguousNameError:
        raise
    except TorporError as error:
        image = args.source.removeprefix("podman:")
        if args.engine not in (None, "podman") or not names.PODMAN.has_image(image):
            error.add_note("there is no such file or image either")
            raise
        return lambda: waking.restore_image(image, args.name, args.copies, words)
    if target.job is not None:
        return generations.find(target.job.name)
    container = target.container
    if container is None:
        raise UsageError(f"{target.label} is no checkpoint")
    if args.name or args.copies != 1:
        raise UsageError(
            f"{target.label} wakes under its own name, once",
            hint="copies come from an archive: torpor checkpoint ... -o FILE",
        )
    return lambda: waking.restore_stored(container, words)


def _restore_processes(args: argparse.Namespace, source: Generation | Path) -> int:
    from contextlib import ExitStack

    from torpor.base.errors import UsageError
    from torpor.engine import jobs
    from torpor.engine.destination import opened
    from torpor.images.errors import ImageMissing
    from torpor.images.stores.opening import is_stream

    if args.copies != 1 and args.wait:
        raise UsageError("--wait waits for one, not for several copies")
    if args.copies != 1 and args.lazy:
        raise UsageError("--lazy and --copies exclude each other: copies share what the first has")
    with ExitStack() as stack:
        if isinstance(source, Path):
            images = stack.enter_context(opened(source))
            about = jobs.note.read(images)
        else:
            stack.enter_context(jobs.generations.reading(source))
            if is_stream(source.place):
                raise jobs.generations.gone(source)
            try:
                images = stack.enter_context(opened(source.place))
            except ImageMissing:
                raise jobs.generations.gone(source) from None
            about = jobs.note.read(images)
            if about is None or about.id != source.note.id:
                raise jobs.generations.gone(source)
        args.trust = args.trust or (not isinstance(source, Path) and source.is_untouched)
        pid = _restore_all(args, images, about)
    if not args.wait:
        return 0
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


def _restore_all(args: argparse.Namespace, images: Location, about: Note | None) -> int:
    """One, or all copies; the pid of the last."""
    from torpor.base.errors import UsageError

    if args.copies == 1 and (about is not None or not args.name):
        names: list[str | None] = [args.name]
    elif about is None:
        raise UsageError("--name and --copies are for jobs and containers", hint="a job's name instead of a path")
    else:
        names = [f"{args.name or about.name}{number}" for number in range(1, args.copies + 1)]
    made: list[tuple[str, int, float]] = []
    try:
        with _template(len(names)) as template:
            for name in names:
                made.append(_restore_one(args, images, about, name, template))
    except Exception as error:
        if made:
            running = ", ".join(label for label, _, _ in made)
            error.add_note(f"{running} {'runs' if len(made) == 1 else 'run'}")
        raise
    if args.json:
        _print_json([(label, pid, ()) for label, pid, _ in made], sum(seconds for _, _, seconds in made))
    return made[-1][1]


def _template(n_copies: int) -> AbstractContextManager[Template | None]:
    """What several copies share the memory of."""
    from contextlib import nullcontext

    if n_copies == 1:
        return nullcontext()
    from torpor.engine.restore.template import Template

    return Template()


def _restore_one(
    args: argparse.Namespace, images: Location, about: Note | None, name: str | None, template: Template | None
) -> tuple[str, int, float]:
    """Its name, its pid, and how long it took."""
    import torpor
    from torpor.cli import process_options
    from torpor.cli.progress import Progress, size_of_pages, time_of
    from torpor.cli.telling import tell
    from torpor.engine import jobs

    def restore(path: Location, renames: tuple[tuple[str, str], ...] = (), notify: Notify | None = None) -> int:
        told = process_options.keywords(args, process_options.RESTORE)
        return torpor.restore(
            path,
            renames=renames,
            notify=notify,
            template=template,
            **told,  # type: ignore[arg-type]
        )

    with Progress(f"restoring {args.source}", size_of_pages(images), "rchar") as progress:
        if about is None:
            label, pid = args.source, restore(images)
        else:
            job = jobs.wake(images, about, restore, name=name)
            label, pid = job.name, job.pid
    if not args.json:
        tell(f"{label}: pid {pid}, after {time_of(progress.seconds)}")
    return label, pid, progress.seconds


def _print_json(made: Sequence[tuple[str, int, Sequence[str]]], seconds: float) -> None:
    import json

    from torpor.cli.telling import tell

    restored = [{"name": name, "pid": pid, "addresses": list(addresses)} for name, pid, addresses in made]
    tell(json.dumps({"restored": restored, "seconds": seconds}, indent=1))
