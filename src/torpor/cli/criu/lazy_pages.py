"""``criu lazy-pages``: memory of a tree that is restored with ``--lazy-pages`` comes while it runs."""

from __future__ import annotations

from torpor.cli.criu.options import Options
from torpor.cli.criu.page_server import begin, where
from torpor.engine.sets.reading import open_set
from torpor.migrate.lazy_pages import Waiting, serve


def main(options: Options) -> int:
    """Bring the pages of one restore; the exit code."""
    with open_set(options.images_dir, verify=options.verify) as store, Waiting() as waiting:
        begin(options)
        serve(waiting, store, where(options) if options.page_server else None)
    return 0
