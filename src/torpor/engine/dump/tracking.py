"""Dumps that lean on those before them: what has been written since is known, and only that is copied.

What is known is a :class:`~torpor.objects.memory.tracking.Tracker`: the caller's, or one that a process has kept since
the command before (:mod:`torpor.tracee.keeper`).  It is worth nothing unless the images before are those of its last
look, which their inventory tells; a dump that is to lean on others copies everything then, and says why.
"""

from __future__ import annotations

import os

from torpor.base import log
from torpor.base.errors import UsageError
from torpor.base.ids import Pid, TreePid
from torpor.base.typed import TYPE_CHECKING
from torpor.engine.dump.session import DumpSession
from torpor.images.pages import joined
from torpor.objects.memory.segments import DumpedPages
from torpor.tracee import keeper

if TYPE_CHECKING:
    from torpor.images.pages import Range
    from torpor.images.store import ImageStore
    from torpor.objects.memory.tracking import Tracker

_NOWHERE: dict[TreePid, list[Range]] = {}


def find(session: DumpSession) -> None:
    """What is known of writes to the tree's memory; UsageError for images before that are none.

    Whoever does not want to know must know all the same what of the mappings' flags is ours.
    """
    options, tracker = session.options, session.options.tracker
    before = _open_parent(session) if options.parent else None
    if tracker is None:
        kept = session.kept = keeper.find(session.pid)
        if kept is None and not (options.track or options.parent):
            return
    from torpor.kernel.userfaultfd import can_track
    from torpor.objects.memory import tracking

    if not can_track():
        log.warn("this kernel does not tell what was written to memory (userfaultfd, Linux 6.7): all of it is copied")
        return
    ident, elsewhere = "" if tracker is None else tracker.ident, _NOWHERE
    if tracker is None:
        tracker = tracking.Tracker()
        session.hold.enter_context(tracker)
        ident, elsewhere = _take_kept(session, tracker)
    session.tracker, session.tracks = tracker, options.track and options.leave_running
    if before is not None:
        _read_held(session, before, ident, elsewhere)
    elif options.tracker is not None and ident:
        session.held = tracker.held


def _take_kept(session: DumpSession, tracker: Tracker) -> tuple[str, dict[TreePid, list[Range]]]:
    """Have *tracker* be what a keeper has; the set that it is newer than, and which pages a page server has of it."""
    from torpor.objects.memory import tracking

    kept = session.kept
    if kept is None:
        return "", _NOWHERE
    session.hold.callback(kept.close)
    # A keeper of an engine before this one, from before an update, knows of no page server.
    ident, spaces, *others = kept.known
    elsewhere = others[0] if others else ()
    for (pid, start_time), fd in zip(spaces, kept.fds, strict=False):
        tracker.spaces[Pid(pid)] = tracking.Tracked(Pid(pid), start_time, fd)
    for fd in kept.fds[len(spaces) :]:
        fd.close()
    return ident, {TreePid(pid): ranges for pid, ranges in elsewhere}


def _open_parent(session: DumpSession) -> ImageStore:
    from torpor.images import kinds
    from torpor.images.errors import ImageError
    from torpor.images.stores.opening import open_store

    given = session.options.parent
    path = os.path.join(session.new.directory, given)
    hint = "it names, from the images directory, that of a pre-dump or dump of the same tree"
    if os.path.exists(path) and os.path.samefile(path, session.new.directory):
        raise UsageError(f"--prev-images-dir {given} is where these images are to be", hint=hint)
    try:
        store = session.hold.enter_context(open_store(path))
        if not store.exists(kinds.INVENTORY.file_name()):
            raise UsageError(f"--prev-images-dir {given}: there are no images", hint=hint)
    except ImageError as error:
        raise UsageError(f"--prev-images-dir {given}: {error}", hint=hint) from error
    session.context.part(DumpedPages).before = store
    return store


def _read_held(session: DumpSession, before: ImageStore, ident: str, elsewhere: dict[TreePid, list[Range]]) -> None:
    """Which pages the images before have, here or *elsewhere*, if they are those of the last look.

    What the page server that is to take the pages of this dump has not is not lent on.  WireError.
    """
    from torpor.images import kinds
    from torpor.images.pagemap import Source, load_pagemap
    from torpor.images.store import load_one
    from torpor.kernel.vm import PAGE_SIZE

    if not ident or load_one(before, kinds.INVENTORY).dump_criu_run_id != ident:
        why = "others were made since" if ident else "nobody has kept track, or the last dump failed"
        log.warn(f"what was written since the images in {before.path} is not known ({why}): all memory is copied")
        return
    tracker = session.options.tracker
    if tracker is not None and session.options.pages is None:
        # The caller's own, which knows it: of a program that writes here and there page maps take a second to be read.
        session.held = tracker.held
        return
    for name in before.names():
        found = kinds.by_file_name(name)
        if found is None or found[0] is not kinds.PAGEMAP or not isinstance(found[1], int):
            continue
        runs = load_pagemap(before, found[1], page_bytes=PAGE_SIZE).runs
        ranges = ((run.vaddr, run.end) for run in runs if run.source != Source.LAZY)
        session.held[TreePid(found[1])] = joined(ranges)
    if session.options.pages is not None:
        has_parent, held = session.options.pages.has_parent, {**elsewhere, **session.held}
        session.held = {pid: ranges for pid, ranges in held.items() if has_parent(kinds.PAGEMAP, pid)}
        if len(session.held) < len(held):
            log.warn(
                "the page server has not the parent images of all processes, whose memory is copied as a whole "
                "(criu page-server --prev-images-dir names them there)"
            )


def follow(session: DumpSession) -> None:
    """What is noted of each process is looked up; all are followed from now on, if they are to be."""
    tracker = session.tracker
    if tracker is None:
        return
    if session.tracks:
        # Until this dump's images are complete, what will be noted has nothing to be newer than.
        tracker.ident = ""
        if session.kept is not None:
            session.kept.forget()
    session.noted = tracker.follow(session.alive, session.context, protect=session.tracks)
    if not session.held:
        return
    for process in session.alive:
        if process.pid not in session.noted:
            log.info(f"{process.describe()} is new: its memory is copied as a whole")


def hand_over(session: DumpSession) -> None:
    """The images are complete, and the tree runs: what is noted from now on is newer than they."""
    tracker = session.tracker
    if tracker is None:
        return
    if not session.options.leave_running:
        return
    if not session.tracks:
        if session.kept is not None and session.options.parent:
            session.kept.end()
        return
    tracker.ident = session.new.ident
    # Each round adds pieces of what the rounds before had.
    tracker.held = {
        process.ns_pid: joined(sorted(scan.found.ranges + scan.held))
        for process in session.alive
        if (scan := session.scans.get(process.pid)) is not None
    }
    tracker.maps = {}
    for process in session.alive:
        if process.pid in session.noted:
            tracker.look_back(process, session.noted[process.pid])
    if session.options.tracker is None:
        _keep(session, tracker)


def _keep(session: DumpSession, tracker: Tracker) -> None:
    if session.kept is not None:
        session.kept.end()
    spaces = list(tracker.spaces.values())
    whose = [(tracked.pid, tracked.start_time) for tracked in spaces]
    # That memory is protected by us is true also of a dump that forgets what is known, and dies.
    elsewhere = [] if session.new.has_pages else list(tracker.held.items())
    known = tracker.ident, whose, elsewhere
    forgotten: tuple[str, list[tuple[Pid, int]], list[object]] = "", whose, []
    try:
        keeper.keep(session.pid, known, [tracked.fd.fileno() for tracked in spaces], forgotten=forgotten)
    except OSError as error:
        log.warn(f"nobody can keep track of what is written from now on ({error}): the next dump copies all memory")
