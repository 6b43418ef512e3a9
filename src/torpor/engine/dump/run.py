"""Dump: stop, ask, read, let go.

collect     what each process is, from /proc                       (outside)
files       descriptors come across by pidfd_getfd                 (outside)
ask         one batch a thread: what a task alone can say          (inside)
memory      pages in large vectors                                 (outside)
images      everything small is written, then the tree is let go
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from torpor.base import log
from torpor.base.errors import TorporError
from torpor.base.explain import explained
from torpor.base.late import load
from torpor.engine import namespaces
from torpor.engine.dump import asking, collecting, deaths, ending, preflight, reading, stopping, writing
from torpor.engine.dump.session import DumpSession, begin
from torpor.engine.dump.warming import warm_up
from torpor.engine.options import DumpOptions, nobody
from torpor.engine.sets.places import place_inside, place_whole
from torpor.engine.sets.writing import NewSet
from torpor.engine.stats import DumpStats
from torpor.images.stores.opening import open_store
from torpor.kernel.namespaces import network_of
from torpor.objects.arch import cpu
from torpor.objects.cgroup.model import IGNORE


@explained
def dump(pid: int, directory: str | os.PathLike[str], options: DumpOptions | None = None) -> DumpStats:
    """Checkpoint *pid* and everything below it into *directory*, which must exist unless it is ours.

    TargetGoneError, NotPermittedError, RefusedError, StoreError; the tree runs on after any of them, and what images
    there were in *directory* are there still.
    """
    options = options or DumpOptions()
    place = place_whole(directory, force=options.force) if options.owns_directory else place_inside(directory)
    with NewSet(place, options.made_by) as new, ExitStack() as hold:
        session = begin(pid, new, options, hold)
        run(session)
        try:
            new.finish()
        except TorporError as error:
            if not new.is_last:
                raise
            # The tree is gone and the set is whole: whoever comes next does the rest.
            log.warn(f"the images are complete, but perhaps not on the disk yet: {error}")
        try:
            with open_store(options.stats_directory or directory, "w") as store:
                session.stats.write(store)
        except TorporError as error:
            log.warn(f"the images are complete, but their statistics cannot be written: {error}")
    return session.stats


def run(session: DumpSession) -> None:
    """Do it."""
    options, outside, notify, pid = session.options, session.outside, session.options.notify, session.pid
    session.hold.callback(outside.close)
    session.entered = load("torpor.engine.dump.entered").to_carry(pid, options.entered)
    seen = preflight.check(pid, options, by_freezer=bool(options.cgroups.freezer), entered=session.entered)
    outside.noticed, outside.restless = seen.noticed, seen.restless
    namespaces.prepare(pid, options.files)
    warm_up()
    if "connections" in outside.noticed or not options.leave_running:
        _ = outside.caretaker  # forked while nothing is frozen yet
    if options.cgroups.mode != IGNORE:
        session.cgroups = load("torpor.engine.cgroups").CgroupDump(options.cgroups, pid)
    stopping.find_freezer(session)
    cpu.dump(session.store)
    notify("pre-dump", pid)
    stopping.stop(session)
    with session.tree, deaths.told(session.processes), session.files, session.stats.watch.span("frozen"):
        stopping.check_root(session)
        collecting.collect(session)
        collecting.relieve(session)
        collecting.check(session)
        collecting.read_idmaps(session)
        reading.lock_network(session)
        # The kernel's tables of sockets are those of the reader's network namespace.
        with network_of(pid):
            reading.ask_cgroups(session)
            reading.read_filters(session)
            reading.read_files(session)
            reading.read_locks(session)
            asking.dump_inside(session)
            reading.read_namespaces(session)
            reading.read_segments(session)
            writing.write_images(session)
        collecting.look_for_entered(session)
        if notify is not nobody:
            # Whoever is told may look at the images.
            writing.seal(session)
            session.new.place()
            notify("post-dump", pid)
            collecting.look_for_entered(session)  # hooks start processes
        if not options.leave_running:
            writing.commit(session)
        ending.let_go(session)
    writing.flush(session)
    if options.leave_running:
        writing.commit(session)
