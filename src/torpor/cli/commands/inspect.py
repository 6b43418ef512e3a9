"""``torpor inspect``: what a checkpoint holds."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.engine.checkpoint import Checkpoint, CheckpointedProcess


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.description = "Show what a checkpoint holds and what it needs where it is restored. Needs no privileges."
    parser.add_argument("source", metavar="PATH|NAME", help="a checkpoint's directory, or a job's name")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--files", action="store_true", help="every descriptor, and every file needed")


def main(args: argparse.Namespace) -> int:
    """Print it."""
    from torpor.engine.checkpoint import Checkpoint

    path = Path(args.source)
    if not path.is_dir() and "/" not in args.source:
        from torpor.engine import jobs

        path = jobs.find(args.source).images_directory
    with Checkpoint(path) as checkpoint:
        if args.json:
            import json

            print(json.dumps(_as_json(checkpoint), indent=1))
        else:
            for line in _lines(checkpoint, args.files):
                print(line)
    return 0


def _as_json(checkpoint: Checkpoint) -> dict[str, object]:
    from torpor.base.records import fields

    def plain(value: object) -> object:
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        if hasattr(type(value), "__match_args__"):
            return {item.name: plain(getattr(value, item.name)) for item in fields(value)}  # type: ignore[arg-type]
        return value

    return {
        "path": checkpoint.path,
        "size_bytes": checkpoint.size_bytes,
        "memory_bytes": checkpoint.memory_bytes,
        "processes": plain(checkpoint.processes),
        "sockets": plain(checkpoint.sockets),
        "needs": plain(checkpoint.needs),
    }


def _lines(checkpoint: Checkpoint, with_files: bool) -> Iterator[str]:
    from torpor.cli.progress import size

    yield f"{checkpoint.path}: {size(checkpoint.size_bytes)}, {size(checkpoint.memory_bytes)} of memory"
    yield ""
    yield "PROCESSES"
    depth: dict[int, int] = {}
    for process in checkpoint.processes:
        depth[process.pid] = depth.get(process.parent, -1) + 1
        yield from _process_lines(process, "  " * (depth[process.pid] + 1), with_files)
    if checkpoint.sockets:
        yield ""
        yield "SOCKETS"
        yield from (f"  {line}" for line in checkpoint.sockets)
    needs = checkpoint.needs
    yield ""
    yield "NEEDS"
    yield f"  an {needs.architecture} kernel"
    if needs.namespaces:
        yield f"  brings its own namespaces: {', '.join(needs.namespaces)}"
    if needs.pids:
        yield f"  free pids: {', '.join(map(str, needs.pids[:20]))}{' ...' if len(needs.pids) > 20 else ''}"
    if needs.addresses:
        yield f"  free addresses: {', '.join(needs.addresses)}"
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
    yield (
        f"{indent}{process.pid} {process.name}{state}{threads}, {size(process.memory_bytes)} in "
        f"{process.n_mappings} mappings, {len(process.descriptors)} descriptors"
    )
    if with_files:
        yield f"{indent}    {process.executable}"
        for descriptor in process.descriptors:
            yield f"{indent}    {descriptor.number:3} {descriptor.kind:8} {descriptor.target}"
