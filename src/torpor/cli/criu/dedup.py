"""``criu dedup``."""

from __future__ import annotations

from torpor.base import log
from torpor.cli.criu.options import Options
from torpor.engine.sets.dedup import dedup


def main(options: Options) -> int:
    """Take out of the images before those in ``--images-dir`` what these have themselves; the exit code."""
    n_bytes = dedup(options.images_dir)
    log.info(f"{n_bytes} bytes of the images before are free")
    return 0
