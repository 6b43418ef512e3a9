"""``torpor inspect``: what a checkpoint holds, of a process, a job or a container."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.containers.archive import Archive
    from torpor.containers.overview import Overview
    from torpor.engine.sets.contents import Checkpoint, CheckpointedProcess


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the description, the arguments and the options of ``torpor inspect``."""
    parser.description = (
        "Show what a checkpoint holds and what it needs where it is restored. Needs no privileges, and unpacks nothing."
    )
    parser.add_argument(
        "source",
        metavar="PATH|NAME",
        help="a checkpoint's directory or archive, a job (NAME: its newest checkpoint, NAME@2, NAME@TAG), or a "
        "container that sleeps",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument(
        "--files", action="store_true", help="every descriptor, and every file needed or changed in the container"
    )
    parser.add_argument("--mounts", action="store_true", help="every mount and annotation of a container")
    parser.add_argument(
        "--memory",
        action="store_true",
        help="which memory there is, and where its pages are: here, in the parent images, with a page server (lazy), "
        "or nowhere (zero)",
    )
    parser.add_argument("-a", "--all", action="store_true", help="all of these, and the environment of each process")


def main(args: argparse.Namespace) -> int:
    """Print what the checkpoint holds, as lines or as JSON; 0.  TorporError where it cannot be read."""
    from torpor.cli.telling import printable
    from torpor.containers.archive import read_archive, read_directory
    from torpor.containers.overview import overview_of
    from torpor.engine.sets.contents import Checkpoint

    path = place_of(args.source)
    if path.is_dir():
        archive, images = read_directory(path)
        checkpoint = Checkpoint(images)
    else:
        archive = read_archive(path)
        checkpoint = Checkpoint(archive.store)
    with checkpoint:
        overview = overview_of(archive) if "config.dump" in archive.documents else _noted(path)
        if args.json:
            import json

            told = _as_json(checkpoint, overview, archive)
            if args.all:
                # Only then: there are often secrets in it.
                pids = [process.pid for process in checkpoint.processes]
                told["environments"] = {str(pid): checkpoint.environment_of(pid) for pid in pids}
            if args.memory:
                told["memory"] = _plain(checkpoint.memory)
            print(json.dumps(told, indent=1))
            return 0
        for line in _lines(checkpoint, overview, archive, args):
            print(printable(line))
        for remark in archive.remarks:
            print(printable(f"ODD: {remark}"))
    return 0


def place_of(source: str) -> Path:
    """Where the checkpoint lies that a user calls *source*: a directory or an archive, which need not be there."""
    from torpor.images.stores.opening import is_stream

    path = Path(source)
    if path.exists() or "/" in source or is_stream(path):
        return path
    from torpor.containers import names
    from torpor.engine.jobs import generations

    name, which = generations.split(source.removeprefix("job:"))
    if which:
        return generations.find(name, which).place
    target = names.resolve(source)
    if target.job is not None:
        return generations.find(target.job.name).place
    return names.stored_checkpoint(target)


def _noted(path: Path) -> Overview | None:
    """The container of which torpor left a note beside images that say nothing of it."""
    from torpor.containers import note
    from torpor.containers.overview import Overview

    told = note.read(path) if path.is_dir() else None
    return Overview(told.engine, told.name, told.id, told.image) if told is not None else None


def _plain(value: object) -> object:
    """Records as dictionaries."""
    from torpor.base.records import fields

    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if hasattr(type(value), "__match_args__"):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    return value


def _as_json(checkpoint: Checkpoint, overview: Overview | None, archive: Archive) -> dict[str, object]:
    told: dict[str, object] = {
        "path": checkpoint.path,
        "made": _made(checkpoint, archive),
        "size_bytes": checkpoint.size_bytes,
        "memory_bytes": checkpoint.memory_bytes,
        "processes": _plain(checkpoint.processes),
        "sockets": _plain(checkpoint.sockets),
        "needs": _plain(checkpoint.needs),
    }
    if overview is not None:
        container = _plain(overview)
        assert isinstance(container, dict)
        container["annotations"] = dict(overview.annotations)
        told["container"] = container
        told["archive"] = {
            "compression": archive.compression,
            "file_bytes": archive.file_bytes,
            "remarks": archive.remarks,
        }
    return told


def _made(checkpoint: Checkpoint, archive: Archive) -> dict[str, object]:
    """What is known of where the checkpoint comes from; of one without a manifest when its images were written."""
    from torpor.images import manifest
    from torpor.images.errors import ImageError

    told = None
    with suppress(ImageError):
        data = archive.documents.get(manifest.NAME)
        told = manifest.parse(data) if data is not None else checkpoint.manifest
    date: float = told.date if told is not None else archive.written
    return {
        "date": date,
        "host": told.host if told is not None else "",
        "kernel": told.kernel if told is not None else "",
        "torpor": told.torpor if told is not None else "",
        "made_by": told.made_by if told is not None else "",
        "architecture": checkpoint.needs.architecture,
    }


def _made_line(made: dict[str, object]) -> str:
    import time

    date = made["date"]
    assert isinstance(date, int | float)
    words = [time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(date)) if date else "at an unknown time"]
    if made["torpor"]:
        words.append(f"by {made['made_by'] or 'torpor'} (torpor {made['torpor']})")
        words.append(f"on {made['host']}, kernel {made['kernel']}, {made['architecture']}")
    else:
        words.append(f"by another CRIU or an older torpor, {made['architecture']}")
    return f"made {' '.join(words)}"


def _lines(
    checkpoint: Checkpoint, overview: Overview | None, archive: Archive, args: argparse.Namespace
) -> Iterator[str]:
    from torpor.cli import container_text
    from torpor.cli.progress import size

    with_files = args.files or args.all
    made = _made(checkpoint, archive)
    yield f"{checkpoint.path}: {size(checkpoint.size_bytes)}, {size(checkpoint.memory_bytes)} of memory"
    yield f"  {_made_line(made)}"
    if overview is not None:
        yield ""
        yield from container_text.lines(overview, with_files=with_files, with_mounts=args.mounts or args.all)
    yield ""
    yield "PROCESSES"
    depth: dict[int, int] = {}
    for process in checkpoint.processes:
        depth[process.pid] = depth.get(process.parent, -1) + 1
        indent = "  " * (depth[process.pid] + 1)
        yield from _process_lines(process, indent, with_files)
        for variable in checkpoint.environment_of(process.pid) if args.all else ():
            yield f"{indent}    {variable}"
    if args.memory:
        yield ""
        yield from _memory_lines(checkpoint)
    if checkpoint.sockets:
        yield ""
        yield "SOCKETS"
        yield from (f"  {line}" for line in checkpoint.sockets)
    yield ""
    yield from _needs_lines(checkpoint, overview, with_files)


def _memory_lines(checkpoint: Checkpoint) -> Iterator[str]:
    from torpor.cli.progress import size

    yield "MEMORY"
    for memory in checkpoint.memory:
        places = ", ".join(f"{size(n_bytes)} {source}" for source, n_bytes in sorted(memory.bytes_of().items()))
        yield f"  {f'segment {memory.number:#x}' if memory.is_segment else memory.number}: {places or 'nothing'}"
        for run in memory.runs:
            yield f"    {run.start:#014x}-{run.end:#014x} {size(run.end - run.start):>10} {run.source}"


def _needs_lines(checkpoint: Checkpoint, overview: Overview | None, with_files: bool) -> Iterator[str]:
    needs = checkpoint.needs
    yield "NEEDS"
    yield f"  an {needs.architecture} kernel"
    if needs.namespaces:
        yield f"  brings its own namespaces: {', '.join(needs.namespaces)}"
    if needs.pids:
        yield f"  free pids: {', '.join(map(str, needs.pids[:20]))}{' ...' if len(needs.pids) > 20 else ''}"
    if needs.addresses:
        yield f"  free addresses: {', '.join(needs.addresses)}"
    if overview is not None and overview.image:
        yield f"  the image {overview.image}"
        if not with_files:
            return
    shown = needs.files if with_files else needs.files[:8]
    yield f"  the same files ({len(needs.files)}):"
    yield from (f"    {path}" for path in shown)
    if len(shown) < len(needs.files):
        yield f"    ... and {len(needs.files) - len(shown)} more (--files shows them)"


def _process_lines(process: CheckpointedProcess, indent: str, with_files: bool) -> Iterator[str]:
    from torpor.cli.progress import size

    if process.state == "zombie":
        yield f"{indent}{process.pid} {process.name} (zombie)"
        return
    threads = f", {len(process.threads)} threads" if len(process.threads) > 1 else ""
    state = "" if process.state == "running" else f", {process.state}"
    user = f", user {process.uid}:{process.gid}" if process.uid or process.gid else ""
    shared = f" and {size(process.shared_bytes)} shared" if process.shared_bytes else ""
    yield (
        f"{indent}{process.pid} {process.name}{state}{threads}{user}, {size(process.memory_bytes)}{shared} in "
        f"{process.n_mappings} mappings, {len(process.descriptors)} descriptors"
    )
    if process.command:
        from shlex import join

        text = join(process.command)
        yield f"{indent}    {text if with_files or len(text) <= 100 else text[:97] + '...'}"
    if with_files:
        yield f"{indent}    {process.executable}"
        if process.directory:
            yield f"{indent}    cwd {process.directory}, root {process.root}"
        for descriptor in process.descriptors:
            yield f"{indent}    {descriptor.number:3} {descriptor.kind:8} {descriptor.target}"
