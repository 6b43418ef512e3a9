"""A page server that takes pages: from a dump on another host into the images here.

What comes is a stranger's.  Pages go into a directory of their own, *staging*, below that of the images, and get to
their place when the other end has said that this was all: one that breaks off leaves nothing.
"""

from __future__ import annotations

import os
from contextlib import suppress

from torpor.base import log
from torpor.base.typed import Self
from torpor.engine.sets.places import Inside, is_image, make_staging, remove
from torpor.images import kinds, manifest
from torpor.images import messages as m
from torpor.images.errors import ImageError, StoreError
from torpor.images.kinds import ImageKind
from torpor.images.pagemap import Source
from torpor.images.pages import Range, StoreSink, StoreStream, check_in_parent
from torpor.images.store import ImageStore
from torpor.images.stores.opening import open_directory
from torpor.kernel.vm import PAGE_SIZE
from torpor.migrate import wire
from torpor.migrate.connection import Connection
from torpor.migrate.wire import NUMBER, Message, WireError

#: Numbers of pages images begin above those of a dump that writes into the same directory, as CRIU's do.
_LAST_ID = 1 << 16
_CHUNK = 512 << 10
#: A dump says nothing while it looks at its tree; one that has said nothing for so long is given up.
_SILENT_S = 3600
#: The most runs that a page map may have (each takes some hundred bytes of memory), and the most page maps (each is two
#: files; there is one for each address space and each shared segment of the tree).
_MAX_RUNS = 1 << 23
_MAX_MAPS = 1 << 14


def take(connection: Connection, directory: str) -> int:
    """Take the pages that come into the images in *directory*; how many there were.

    StoreError, and WireError where the other end breaks off or says what cannot be; nothing is left then.
    """
    with Staging(directory) as staging:
        taken = _Taking(connection, staging)
        taken.serve()
        staging.publish()
        connection.send([NUMBER.pack(0)])
    connection.end()
    return taken.n_pages


class Staging:
    """The images that come, until all have; ``store`` takes them.  A context manager: what was not published goes."""

    def __init__(self, directory: str) -> None:
        self._path = directory
        self._home = open_directory(directory, "w")
        self._name = f"{Inside.PREFIX}{os.urandom(10).hex()}"
        try:
            self._fd = make_staging(self._home.fileno(), self._name)
        except OSError as error:
            self._home.close()
            raise StoreError(f"{directory}: pages cannot be taken there: {error.strerror}") from error
        self.store = open_directory(self._fd, "w", directory)

    def parent(self) -> ImageStore | None:
        """The images that these ones build upon."""
        return self._home.parent()

    def publish(self) -> None:
        """Put all into place, page maps last.  What of an earlier set lies there is one no more, and goes."""
        home = self._home.fileno()
        try:
            self._drop_earlier()
            names = sorted(self.store.written, key=lambda name: (not name.startswith("pages-"), name))
            for name in names:
                os.rename(name, name, src_dir_fd=self._fd, dst_dir_fd=home)
        except OSError as error:
            raise StoreError(f"{self._path}: cannot put the pages into place: {error.strerror}") from error

    def _drop_earlier(self) -> None:
        """Of a set whose page maps come anew: it would be one of two dumps."""
        try:
            earlier = manifest.read(self._home.fileno())
        except ImageError:
            earlier = None
        if earlier is None or not any(name in earlier.files for name in self.store.written):
            return
        inventory = kinds.INVENTORY.file_name()
        for name in (inventory, *(each for each in earlier.files if is_image(each)), manifest.NAME):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._home.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()
        try:
            remove(self._home.fileno(), self._name, self._fd)
        except OSError as error:
            log.debug(f"{self._path}/{self._name}: {error.strerror}: whoever writes images there next removes it")
        os.close(self._fd)
        self._home.close()


class _Taking:
    """One connection's pages on their way into a store."""

    def __init__(self, connection: Connection, staging: Staging) -> None:
        self._connection, self._staging = connection, staging
        self._sink = StoreSink(staging.store, PAGE_SIZE, _LAST_ID)
        self._stream: _Stream | None = None
        self._seen: set[int] = set()
        self.n_pages = 0

    def serve(self) -> None:
        """Until all has come."""
        try:
            while (message := self._next()).command not in (wire.CLOSE, wire.FORCE_CLOSE):
                self._do(message)
            self._close_stream()
        except BaseException:
            if self._stream is not None:
                self._stream.stream.abandon()
            raise

    def _next(self) -> Message:
        message = self._connection.next_message(within_s=_SILENT_S)
        if message is None:
            raise WireError(f"{self._connection.name} has hung up before all pages had come: nothing of them is kept")
        return message

    def _do(self, message: Message) -> None:
        command = message.command
        if command == wire.OPEN2:
            self._connection.send([bytes([self._open(message.whose)])])
        elif command == wire.OPEN:
            self._open(message.whose)
        elif command == wire.PARENT:
            self._connection.send([NUMBER.pack(self._has_parent(*wire.map_of(message.whose)))])
        elif command == wire.GET:
            raise WireError("pages are asked for, and this page server only takes them", hint="criu page-server "
                            "--lazy-pages gives those of images")  # fmt: skip
        else:
            if self._stream is None or self._stream.whose != message.whose:
                self._open(message.whose)
            assert self._stream is not None
            self.n_pages += self._stream.take(message, self._connection)

    def _open(self, whose: int) -> bool:
        kind, ident = wire.map_of(whose)
        self._close_stream()
        if whose in self._seen:
            raise WireError(f"{kind.file_name(ident)} comes twice")
        if len(self._seen) >= _MAX_MAPS:
            raise WireError(
                f"{kind.file_name(ident)} is one too many: no more than {_MAX_MAPS} page maps are taken of a client",
                hint="a tree of more processes is dumped into a directory",
            )
        self._seen.add(whose)
        self._stream = _Stream(self._sink, whose, self._staging.parent())
        return self._has_parent(kind, ident)

    def _has_parent(self, kind: ImageKind[m.pagemap_head], ident: int) -> bool:
        parent = self._staging.parent()
        return parent is not None and parent.exists(kind.file_name(ident))

    def _close_stream(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.close()


class _Stream:
    """The pages of one task or segment."""

    def __init__(self, sink: StoreSink, whose: int, parent: ImageStore | None) -> None:
        self.whose = whose
        self._kind, self._ident = wire.map_of(whose)
        self._parent = parent
        self._lazy: list[Range] = []
        self._in_parent: list[Range] = []
        self.stream: StoreStream = sink.open(self._kind, self._ident, lazy=self._lazy)
        self._end = self._n_runs = 0

    def take(self, message: Message, connection: Connection) -> int:
        """A run, and its bytes if it is present; how many pages have come."""
        run = message.run
        if not run.n_pages:
            raise WireError("a run of no pages")
        if run.vaddr < self._end:
            raise WireError(f"pages at {run.vaddr:#x} come after those at {self._end:#x}")
        self._end = run.end
        self._n_runs += 1
        if self._n_runs > _MAX_RUNS:
            raise WireError(f"more than {_MAX_RUNS} runs of pages in {self._kind.file_name(self._ident)}")
        if not run.present:
            self.stream.run(run)
            if run.source is Source.PARENT:
                _join(self._in_parent, run.vaddr, run.end)
            return 0
        if run.lazy:
            _join(self._lazy, run.vaddr, run.end)
        for start in range(run.vaddr, run.end, _CHUNK):
            length = min(_CHUNK, run.end - start)
            content = connection.read(length)
            self.stream.write_at(self.stream.room([(start, length)]), [content])
        return run.n_pages

    def close(self) -> None:
        """The page map is written; ImageError where the parent images have not what was left to them."""
        if self._in_parent:
            check_in_parent(self._parent, self._ident, self._kind, self._in_parent, PAGE_SIZE)
        self.stream.close()


def _join(ranges: list[Range], start: int, end: int) -> None:
    if ranges and ranges[-1][1] == start:
        ranges[-1] = (ranges[-1][0], end)
    else:
        ranges.append((start, end))
