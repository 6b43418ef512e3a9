"""``criu dump`` and ``criu pre-dump``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torpor.base import log
from torpor.base.errors import TorporError
from torpor.base.typed import TYPE_CHECKING
from torpor.cli.criu import place
from torpor.cli.criu.options import Options
from torpor.cli.criu.scripts import notifier
from torpor.engine.dump.run import dump, pre_dump
from torpor.engine.option_table import of_command_line
from torpor.engine.options import DumpOptions, Give, Notify, policies_of
from torpor.objects.cgroup.model import CgroupPolicy
from torpor.objects.policy import Policies

if TYPE_CHECKING:
    from torpor.images.pages import PageServer


def run(options: Options, client: Notify | None = None, *, is_pre_dump: bool = False) -> None:
    """Dump the tree of ``--tree``, or its memory alone.  *client*: whom to tell what action scripts are told.

    For a container engine it is done by ``torpor migrate``, if that is moving the tree just now.
    """
    notify = notifier(options, client)
    if client is not None or is_pre_dump:
        from torpor.migrate import meeting

        if (moving := meeting.knock(meeting.of_dump(options.tree))) is not None:
            meeting.ask_to_dump(
                moving, of_command_line(options), os.path.realpath(options.images_dir), notify,
                stats=os.getcwd(), is_pre_dump=is_pre_dump,
            )  # fmt: skip
            return
    work, made_by = (pre_dump, "criu pre-dump") if is_pre_dump else (dump, "criu dump")
    if client is not None:
        made_by = "criu for a container engine"
    with _sink(options) as pages, _giving(options, notify) as give, place.new(options, notify) as images:
        work(options.tree, images, _options(options, made_by, notify, pages, give))
    if options.display_stats:
        from torpor.cli.criu.show_stats import show_dump

        try:
            show_dump(options.work_dir)
        except TorporError as error:
            log.warn(f"the checkpoint is complete, but its statistics cannot be shown: {error}")


def _options(
    options: Options,
    made_by: str,
    notify: Notify,
    pages: PageServer | None,
    give: Give | None,
) -> DumpOptions:
    told = of_command_line(options)
    return DumpOptions(
        made_by=made_by,
        notify=notify,
        policies=policies_of(told),
        cgroups=CgroupPolicy(**told["cgroups"]),
        pages=pages,
        give=give,
        **told["dump"],
    )


def _sink(options: Options) -> AbstractContextManager[PageServer | None]:
    """Who takes the pages, where they do not go into the images."""
    if not options.page_server or options.lazy_pages:
        return nullcontext()
    from torpor.cli.criu import page_server

    return page_server.sink(options)


@contextmanager
def _giving(options: Options, notify: Notify) -> Iterator[Give | None]:
    """Who gives the pages that are not copied, where some are not to be."""
    if not options.lazy_pages:
        yield None
        return
    from torpor.base.background import say_ready
    from torpor.cli.criu import page_server
    from torpor.migrate.connection import Listener
    from torpor.migrate.giving import Giving

    def ready() -> None:
        # runc waits for the first of these, others for the second.
        notify("status-ready", options.tree)
        say_ready(options.status_fd)

    with Listener(page_server.where(options)) as listener:
        yield Giving(listener, ready)


def policies(options: Options) -> Policies:
    """What the command line says about all but control groups."""
    return policies_of(of_command_line(options))


def cgroup_policy(options: Options) -> CgroupPolicy:
    """What the command line says about control groups."""
    return CgroupPolicy(**of_command_line(options)["cgroups"])
