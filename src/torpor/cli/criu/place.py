"""Where the images of a dump go, and those of a restore come from: a directory, or who has been asked to move them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torpor.cli.criu.options import Options
from torpor.engine.options import Notify
from torpor.images.stores.opening import Location


def new(options: Options, notify: Notify) -> AbstractContextManager[Location]:
    """Where the images of a dump go: a directory, or with --stream the streamer.  To be used in a ``with``."""
    if not options.stream:
        return nullcontext(options.images_dir)
    from torpor.images.stores.streamer import CaptureStore

    notify("pre-stream", 0)
    return CaptureStore(options.images_dir, options.work_dir)


def old(options: Options, notify: Notify) -> AbstractContextManager[Location]:
    """Where the images of a restore come from: a directory, or with --stream the streamer.  Use it in a ``with``."""
    if not options.stream:
        return nullcontext(options.images_dir)
    from torpor.images.stores.spooled import Spool
    from torpor.images.stores.streamer import ServeStore

    notify("pre-stream", 0)
    return ServeStore(options.images_dir, Spool(options.work_dir))
