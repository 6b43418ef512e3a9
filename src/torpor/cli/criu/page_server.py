"""``criu page-server``: pages from a dump on another host into images here, or pages of images here to whoever asks."""

from __future__ import annotations

import os

from torpor.base import log
from torpor.base.background import say_ready, to_background, write_pid
from torpor.cli.criu.options import Options
from torpor.cli.criu.scripts import notifier
from torpor.engine.sets.reading import open_set
from torpor.images.errors import StoreError
from torpor.images.stores.opening import open_directory
from torpor.migrate.connection import Listener, Tls, Where
from torpor.migrate.giving import give
from torpor.migrate.receiving import take
from torpor.migrate.sending import RemoteSink
from torpor.migrate.sources import ImageSource


def main(options: Options) -> int:
    """Serve one dump, or one ``criu lazy-pages``; the exit code."""
    hold(options)
    with Listener(where(options)) as listener:
        log.info(f"The page server listens on {options.address or '*'}, port {listener.port}")
        begin(options)
        serve(options, listener)
    return 0


def begin(options: Options) -> None:
    """Whoever has asked for a server is told that it waits, and where it is to be found."""
    if options.restore_detached:
        to_background(options.pidfile)
    elif options.pidfile:
        write_pid(options.pidfile, os.getpid())
    notifier(options)("status-ready", 0)
    say_ready(options.status_fd)


def hold(options: Options) -> None:
    """Enter the images directory for good, with the link to its parent if it is to have one.

    By RPC its path leads through a descriptor of the client's, which may be another's by the time that pages come.
    StoreError.
    """
    fd = os.open(options.images_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    parent = options.prev_images_dir
    if parent and not options.lazy_pages:
        if not os.access(parent, os.R_OK, dir_fd=fd):
            raise StoreError(
                f"{options.images_dir}: the parent images {parent} are not there",
                hint="--prev-images-dir is relative to the images directory",
            )
        _link(fd, options.images_dir, parent)
    options.images_dir = f"/proc/self/fd/{fd}"


def _link(fd: int, directory: str, parent: str) -> None:
    """A link that is there stays as it is: the set that lies in the directory until ours has come may depend on it."""
    try:
        there = os.readlink("parent", dir_fd=fd)
    except FileNotFoundError:
        with open_directory(fd, "w", directory) as store:
            store.set_parent(parent)
        return
    except OSError as error:
        raise StoreError(f"{directory}/parent: {error.strerror}") from error
    if there != parent:
        raise StoreError(
            f"{directory}: its parent images are {there} already, and not {parent}",
            hint="each dump that leans on another has a directory of its own",
        )


class Listening:
    """A page server that listens, for a client by RPC."""

    def __init__(self, options: Options) -> None:
        hold(options)
        self._options, self._listener = options, Listener(where(options))
        self.port = self._listener.port

    def serve(self) -> None:
        """Say that it is ready, then serve the client that comes, and no other.  TorporError."""
        say_ready(self._options.status_fd)
        serve(self._options, self._listener)

    def close(self) -> None:
        """Stop listening: whoever connects from now on is refused."""
        self._listener.close()


def serve(options: Options, listener: Listener) -> None:
    """Take the pages that the client sends, or with --lazy-pages give it those of the images.  TorporError."""
    if options.lazy_pages:
        with open_set(options.images_dir, verify=options.verify) as store, ImageSource(store) as source:
            with listener.accept() as connection:
                listener.close()
                if not give(connection, source.read):
                    log.warn("whoever asked for pages has gone without a word: perhaps he has not got all of them")
        return
    with listener.accept() as connection:
        listener.close()
        n_pages = take(connection, options.images_dir)
        log.info(f"Took {n_pages} pages")


def sink(options: Options) -> RemoteSink:
    """The page server that the command line of a dump names, connected."""
    from torpor.migrate.connection import connect

    return RemoteSink(connect(where(options)))


def where(options: Options) -> Where:
    """Where the other end is, or is waited for."""
    return Where(options.address, options.port, options.ps_socket, _tls(options))


def _tls(options: Options) -> Tls | None:
    if not options.tls:
        return None
    return Tls(options.tls_cacert, options.tls_cacrl, options.tls_cert, options.tls_key, not options.tls_no_cn_verify)
