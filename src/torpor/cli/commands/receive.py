"""``torpor receive``: the other end of ``torpor migrate``, which starts it by ssh."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the description, the arguments and the options of ``torpor receive``."""
    parser.description = (
        "Take what torpor migrate sends from another host. It is started by that, through ssh, and by nobody else; "
        "whoever may log in may send. Until the other host has given up what comes, an error, a lost link or a signal "
        "leaves nothing here."
    )
    parser.add_argument("--stdio", action="store_true", required=True, help="speak on standard input and output")
    parser.add_argument(
        "--trust", action="store_true",
        help="allow what is refused of strangers' checkpoints (as torpor restore --trust)",
    )  # fmt: skip


def main(args: argparse.Namespace) -> int:
    """Take what the other side of standard input and output sends; 0 if it runs here then, 1 otherwise."""
    from torpor.containers import arriving
    from torpor.migrate import destination

    link = destination.of_standard_streams()
    try:
        return 0 if destination.receive(link, trust=args.trust, taker=arriving.take) is not None else 1
    finally:
        link.close()
