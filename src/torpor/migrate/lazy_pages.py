"""``criu lazy-pages``: brings the pages of a tree that is restored with ``--lazy-pages``, while it runs already.

The restore comes by a socket in the work directory, and says of each process its pid in the images and, by SCM_RIGHTS,
the userfaultfd of its memory; of one without memory of its own the negative pid; and at last that all run.  That is
CRIU's way, so either side may be CRIU.  Pages come from the images, or from a page server.

What becomes of the tree if we end before all is there: see ``filling.Filler.give_up``.  If we are killed by SIGKILL the
kernel gives zeroes for what is missing, unless a keeper (``guarded``) sees to it that the processes end.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Callable
from contextlib import suppress

from torpor.base import log
from torpor.base.errors import NotPermittedError, TorporError
from torpor.base.fds import Closing, OwnedFd
from torpor.base.typed import TYPE_CHECKING
from torpor.images import kinds
from torpor.images.pagemap import load_pagemap
from torpor.images.pages import Range
from torpor.images.store import ImageStore, load_all, load_one
from torpor.kernel import missing
from torpor.kernel.uapi.socket import SO_PEERCRED
from torpor.kernel.vm import PAGE_SIZE
from torpor.migrate.announcing import RESTORED, SOCKET_NAME, WORD
from torpor.migrate.filling import Filler
from torpor.migrate.sources import ImageSource, RemoteSource, reach
from torpor.migrate.wire import WireError
from torpor.objects.memory import later
from torpor.objects.memory.vmas import can_wait

if TYPE_CHECKING:
    from torpor.migrate.connection import Where

_REACH_S = 60
_RECONNECT_S = 300


class Waiting(Closing):
    """The socket at which a restore is waited for; gone when it is closed."""

    def __init__(self, path: str = SOCKET_NAME) -> None:
        self._path = os.path.abspath(path)
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            with suppress(FileNotFoundError):
                if not stat.S_ISSOCK(os.lstat(path).st_mode):
                    raise TorporError(f"{path}: there is something else")
                os.unlink(path)
            self._server.bind(path)
            self._server.listen(1)
        except OSError as error:
            self._server.close()
            raise TorporError(f"{self._path}: cannot listen: {error.strerror}") from error
        finally:
            os.umask(mask)

    def accept(self) -> socket.socket:
        """The restore; NotPermittedError for somebody else's process."""
        link, _ = self._server.accept()
        _, uid, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, SO_PEERCRED, 12))
        if uid not in (0, os.geteuid()):
            link.close()
            raise NotPermittedError(f"user {uid} is not to have pages of these images")
        return link

    def close(self) -> None:
        self._server.close()
        with suppress(OSError):
            os.unlink(self._path)


def missing_of(store: ImageStore, pid: int) -> list[Range]:
    """What a restore leaves for later of process *pid* in the images.  ImageError."""
    mm = load_one(store, kinds.MM, pid)
    runs = load_pagemap(store, pid, page_bytes=PAGE_SIZE).runs
    places = [(entry.start, entry.end) for entry in mm.vmas if can_wait(entry)]
    return later.clipped(((run.vaddr, run.end) for run in runs if run.lazy), places)


def serve(waiting: Waiting, store: ImageStore, where: Where | None) -> None:
    """Bring all pages of the one restore that comes, from *store* or the page server *where*.

    TorporError: it failed; whoever lacks a page dies when touching it, and the log says so.
    """
    known = {entry.pid for entry in load_all(store, kinds.PSTREE)}
    link = waiting.accept()
    waiting.close()
    with link:
        source = ImageSource(store) if where is None else reach(where, _REACH_S)
        daemon = Daemon(link, store, Filler(source), known)
        if isinstance(source, RemoteSource) and where is not None:
            daemon.remote, daemon.again = source, lambda: reach(where, _RECONNECT_S)
        try:
            daemon.run()
        finally:
            source.close()


class Daemon:
    """What brings the pages of one restore: its connection by *link*, its processes (*known*), their pages."""

    def __init__(self, link: socket.socket, store: ImageStore, filler: Filler, known: set[int]) -> None:
        self._link, self._store, self._filler, self._known = link, store, filler, known
        #: The page server that the pages come from; and what reaches it once more when the link to it has broken.
        self.remote: RemoteSource | None = None
        self.again: Callable[[], RemoteSource] | None = None
        #: What is done when the restore has said that all run.
        self.restored: Callable[[], None] | None = None
        #: What is done instead of telling the page server that all is there.
        self.finish: Callable[[], None] | None = None
        #: Whether a restore that hangs up before it has said that all run may have let them go; otherwise what it made
        #: is dead.
        self.may_run = False
        #: The process whose userfaultfd comes next.
        self._pid = 0

    def run(self) -> None:
        """Until all has been brought."""
        filler = self._filler
        self._link.setblocking(False)
        filler.watch(self._link.fileno(), self._hear)
        try:
            while not (filler.is_done and filler.in_background):
                self._step()
        except BaseException:
            if n_spaces := filler.give_up():
                fate = "gets SIGBUS" if missing.can_poison() else "stands still until it is killed (before Linux 6.6)"
                log.error(f"{n_spaces} processes lack pages: whichever touches one of them {fate}")
            raise
        figures = filler.figures
        log.info(f"Brought {figures.n_brought} pages, of which {figures.n_waited} were waited for")
        if self.finish is not None:
            self.finish()
        elif self.remote is not None:
            self.remote.finish()
        if self.remote is not None:
            self.remote.close()

    def _step(self) -> None:
        try:
            self._filler.step()
        except WireError as error:
            if self.remote is None or self.again is None:
                raise
            log.warn(f"{error}: whoever waits for a page waits on")
            self.remote.close()
            self.remote = self.again()
            self._filler.use(self.remote)
            log.warn("the page server is there again")

    def _hear(self) -> None:
        """What the restore says."""
        try:
            if self._pid:
                self._take_faults()
                return
            data = self._link.recv(WORD.size, socket.MSG_WAITALL)
        except BlockingIOError:
            return
        except OSError as error:
            if not self.may_run:
                raise TorporError(f"the restore has gone: {error.strerror}") from error
            data = b""
        if len(data) != WORD.size:
            if not self._filler.in_background and not self.may_run:
                raise TorporError("the restore has hung up before all ran")
            self._filler.in_background = True
            self._filler.unwatch(self._link.fileno())
            return
        (word,) = WORD.unpack(data)
        if word == RESTORED:
            self._filler.in_background = True
            if self.restored is not None:
                self.restored()
            return
        if abs(word) not in self._known:
            raise TorporError(
                f"the restore speaks of pid {abs(word)}, which is not in the images, or for a second time"
            )
        self._known.discard(abs(word))
        if word > 0:
            self._pid = word

    def _take_faults(self) -> None:
        data, fds, _, _ = socket.recv_fds(self._link, 1, 1, socket.MSG_CMSG_CLOEXEC)
        if not data or len(fds) != 1:
            for fd in fds:
                os.close(fd)
            raise TorporError(f"the restore hands no userfaultfd over for pid {self._pid}")
        faults = OwnedFd(fds[0])
        if os.readlink(f"/proc/self/fd/{fds[0]}") != "anon_inode:[userfaultfd]":
            raise TorporError(f"what the restore hands over for pid {self._pid} is no userfaultfd")
        os.set_blocking(fds[0], False)
        pid, self._pid = self._pid, 0
        self._filler.add(pid, faults, missing_of(self._store, pid))
