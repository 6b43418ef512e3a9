"""``criu lazy-pages``: memory of a tree that is restored with ``--lazy-pages`` comes while it runs."""

from __future__ import annotations

import os

from torpor.base.background import say_ready, to_background, write_pid
from torpor.cli.criu.options import Options
from torpor.cli.criu.page_server import where
from torpor.cli.criu.scripts import notifier
from torpor.engine.sets.reading import open_set
from torpor.migrate.lazy_pages import Waiting, serve


def main(options: Options) -> int:
    """Bring the pages of one restore; the exit code."""
    with open_set(options.images_dir, verify=options.verify) as store, Waiting() as waiting:
        if options.restore_detached:
            to_background(options.pidfile)
        elif options.pidfile:
            write_pid(options.pidfile, os.getpid())
        notifier(options)("status-ready", 0)
        say_ready(options.status_fd)
        serve(waiting, store, where(options) if options.page_server else None)
    return 0
