"""``torpor reboot``: reboot the machine, and lose nothing of what is marked."""

from __future__ import annotations

import argparse
from pathlib import Path

from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.containers.reboot.jump import Kernel
    from torpor.containers.reboot.ledger import Entry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the description, the arguments and the options of ``torpor reboot``."""
    parser.description = (
        "Reboot the machine, once everything that torpor survive has marked is seen to be saved: what cannot be is "
        "listed, and nothing is done. With --kernel, kexec starts that kernel directly. If the machine cannot do that, "
        "the reason is said before anything is stopped."
    )
    parser.add_argument("--kernel", metavar="VERSION|PATH", help="start this kernel by kexec, without the firmware")
    parser.add_argument(
        "--initrd", metavar="PATH", type=Path, help="its initial file system, if not that of its version"
    )
    parser.add_argument("--command-line", metavar="WORDS", help="its command line, instead of this kernel's")
    parser.add_argument("--force", action="store_true", help="reboot though something marked cannot be saved")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and what is in the way")
    parser.add_argument("--json", action="store_true", help="what is going to happen, as JSON")


def main(args: argparse.Namespace) -> int:
    """Reboot once all that is marked is known to be saved, or (--dry-run) only say what would be; 0.

    RefusedError where something cannot be saved, unless with --force; nothing has been done then.
    """
    from torpor.base.errors import RefusedError, UsageError
    from torpor.cli import itself
    from torpor.containers.reboot import jump, ledger, saving

    if args.kernel is None and (args.initrd or args.command_line is not None):
        raise UsageError("--initrd and --command-line are of a kernel", hint="--kernel VERSION")
    jump.insist_it_comes_back()
    kernel = None
    if args.kernel is not None:
        kernel = jump.kernel_called(args.kernel, args.initrd, args.command_line)
        if (problem := jump.objection()) is not None:
            raise problem
    found = saving.look(itself.run)
    left = [entry for entry in found if entry.state == ledger.LEFT]
    refused = bool(left) and not args.force
    _say(args, _described(args, found, kernel), "nothing is done" if refused else "the machine reboots")
    if refused:
        names = ", ".join(entry.target for entry in left)
        raise RefusedError(f"{names} cannot be saved; nothing was done", hint="--force reboots all the same")
    if args.dry_run:
        return 0
    if kernel is not None:
        jump.load(kernel)
    jump.go(kernel)
    return 0


def _say(args: argparse.Namespace, text: str, what: str) -> None:
    """That it cannot be written is a failure only where it is all that was asked for."""
    from torpor.cli.telling import tell

    if text and args.dry_run:
        print(text, flush=True)
    elif text:
        tell(text, what=what)


def _described(args: argparse.Namespace, found: list[Entry], kernel: Kernel | None) -> str:
    from torpor.cli.commands.survive import line_of

    if args.json:
        import json
        from dataclasses import asdict

        told = (
            {"image": str(kernel.image), "initrd": str(kernel.initrd or ""), "words": kernel.words} if kernel else None
        )
        return json.dumps({"entries": [asdict(entry) for entry in found], "kernel": told}, indent=1)
    lines = [line_of(entry) for entry in found]
    if kernel is not None:
        lines.append(f"kexec: {kernel.image}, {kernel.initrd or 'without an initrd'}, {kernel.words}")
    return "\n".join(lines)
