"""``criu swrk FD`` and ``criu service``: the commands by which container runtimes have their work done.

A worker serves one client on a socket that it was started with; the service listens on one and forks a worker for each
client.  Requests become command lines (:mod:`torpor.rpc.words`), which take the same way as those of a person.
"""

from __future__ import annotations

import os

from torpor.base import log
from torpor.base.errors import NotPermittedError, TorporError, UsageError
from torpor.base.fds import open_output
from torpor.base.typed import TYPE_CHECKING, NoReturn
from torpor.cli.criu import main as command
from torpor.cli.criu.options import Options
from torpor.cli.criu.parse import override, parse
from torpor.objects.cgroup.model import IGNORE, V2
from torpor.rpc import outside
from torpor.rpc.channel import Channel
from torpor.rpc.service import Order, Server, Work, refuse, serve

if TYPE_CHECKING:
    from torpor.rpc.peer import Peer

#: There are so many workers for other users than our own, and no more: none is for those who want nothing.
_PATIENCE_S = 60.0
_LOG_FILE = {"dump": "dump.log", "pre-dump": "dump.log", "restore": "restore.log"}
_DEFAULT_LOG = "criu.log"


def swrk(options: Options) -> int:
    """Serve the client whose socket is descriptor FD; 0 if its last request succeeded."""
    if len(options.command) != 1 or not options.command[0].isdigit():
        raise UsageError("criu swrk needs the descriptor of a socket", hint="it is started by container runtimes")
    fd = int(options.command[0])
    left = outside.taken()
    try:
        os.set_inheritable(fd, False)
        if left is None:
            outside.leave(fd)
        channel = Channel(fd)
    except OSError as error:
        raise UsageError(f"descriptor {fd} is no socket: {error.strerror}") from None
    log.configure(fd=2, level=options.verbosity)
    try:
        return 0 if serve(channel, _work(may_be_parent=True, left=left)) else 1
    finally:
        channel.close()
        if left is not None:
            left.end()


def listen(options: Options) -> NoReturn:
    """Serve whoever connects to the socket of ``--address``, for ever."""
    from torpor.rpc.listen import Access
    from torpor.rpc.listen import listen as wait_for_clients

    if options.command:
        raise UsageError(f"{options.command[0]!r} is too much for criu service")
    if options.work_dir:
        os.chdir(options.work_dir)
    if options.log_file and options.log_file != "-":
        fd = open_output(options.log_file, os.O_APPEND)
        log.configure(fd=fd, level=options.verbosity)
    if options.socket_mode & 0o077:
        from torpor.rpc.peer import load_everything

        load_everything()  # once, and not in each worker
    wait_for_clients(
        options.address or "criu_service.socket",
        Access(options.socket_mode, _group(options.socket_group)),
        daemon=options.restore_detached,
        pid_file=options.pidfile,
        status_fd=options.status_fd,
        serve=_serve_client,
    )


def _group(name: str) -> int:
    """The number of the group called so, or that is the number itself; -1 for no name."""
    if not name or name.isdigit():
        return int(name or -1)
    import grp

    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise UsageError(f"--socket-group {name}: there is no such group") from None


def _serve_client(fd: int) -> bool:
    """In a worker: serve the client on *fd* as the one who it is."""
    from torpor.rpc import peer as peers

    try:
        peer = peers.identify(fd)
        if not peer.is_ours:
            log.info(f"client {peer.pid} is user {peer.uid}, whose rights its worker gets")
            peers.become(peer)
    except NotPermittedError as error:
        return refuse(Channel(fd), error.describe())
    return serve(Channel(fd, peer), _work(may_be_parent=False, peer=peer))


def _work(*, may_be_parent: bool, peer: Peer | None = None, left: outside.Outside | None = None) -> Work:
    from torpor import __version__

    is_strange = peer is not None and not peer.is_ours

    def options_for(order: Order, what: str) -> Options:
        if is_strange and order.config:
            raise NotPermittedError("config_file is for clients of the service's own user only")
        options = _options(order, what, is_strange=is_strange, left=left)
        if not may_be_parent and (options.restore_sibling or options.inherit_fd):
            raise UsageError("rst_sibling and inherit_fd need a worker of one's own (criu swrk)")
        return options

    def dump(order: Order) -> None:
        from torpor.cli.criu import dump

        dump.run(options_for(order, "dump"), client=order.notify)

    def restore(order: Order) -> int:
        from torpor.cli.criu import restore

        capabilities = peer.capabilities if peer is not None and is_strange else None
        return restore.run(
            options_for(order, "restore"), order.notify, order.orphan_master, capabilities, order.guarded
        )

    def pre_dump(order: Order) -> None:
        from torpor.cli.criu import dump

        dump.run(options_for(order, "pre-dump"), client=order.notify, is_pre_dump=True)

    def page_server(order: Order) -> Server:
        from torpor.cli.criu.page_server import Listening

        return Listening(options_for(order, "page-server"))

    def check(order: Order) -> bool:
        from torpor.cli.criu import check

        return not check.lacking_required()

    def cpuinfo(action: str, order: Order) -> None:
        from torpor.cli.criu.cpuinfo import run

        run(action, options_for(order, "cpuinfo"))

    def execute(words: list[str]) -> None:
        from torpor.cli.criu.restore import become

        for number in (1, 2):
            os.dup2(log.descriptor(), number)
        if peer is not None and is_strange:
            from torpor.rpc.peer import set_capabilities

            set_capabilities(peer.capabilities)
        become(words)

    major, minor = command.COMPATIBLE
    return Work(
        dump,
        pre_dump,
        restore,
        check,
        cpuinfo,
        page_server,
        _features,
        execute,
        (major, minor, 0, f"torpor {__version__}"),
        _report,
        is_own=may_be_parent,
        patience_s=_PATIENCE_S if is_strange else None,
    )


def _options(order: Order, what: str, *, is_strange: bool = False, left: outside.Outside | None = None) -> Options:
    """The options of a request, its directories entered and its log opened.

    Of a client of another user (*is_strange*) our own configuration is left out: it may run scripts.  *left*: the
    control group that was made for what we are to restore, where we are not in it any more.
    """
    words = [*order.words, *(["--no-default-config"] if is_strange else [])]
    if what in ("dump", "pre-dump"):
        words.append(f"--tree={order.pid}")
    options, rest = parse(words)
    if rest:
        raise UsageError(f"{rest[0]!r} is no option")
    if order.config:
        override(options, order.config)
    if options.restore_sibling and not any(name in (None, V2) for name, _ in options.cgroup_root):
        options.cgroup_root += [(V2, path) for path in [left.group if left else outside.group_of_ours()] if path]
    if left is not None and not _are_moved(options):
        left.back()
    options.log_file = options.log_file or _LOG_FILE.get(what, _DEFAULT_LOG)
    command.check_words(what, options)
    command.enter(options)
    log.debug(f"RPC {what}: {' '.join(words)}")
    return options


def _are_moved(options: Options) -> bool:
    """Whether what is to be restored is put into the control groups of the images, and not where we are."""
    from torpor.images import kinds
    from torpor.images.store import load_all
    from torpor.images.stores.opening import open_directory

    if options.cgroup_mode == IGNORE:
        return False
    try:
        with open_directory(options.images_dir) as store:
            return store.exists(kinds.CGROUP.file_name()) and any(each.sets for each in load_all(store, kinds.CGROUP))
    except (TorporError, OSError):
        return False  # the restore says what is wrong


def _features() -> dict[str, bool]:
    from torpor.kernel.features import probe

    return {
        "mem_track": probe("mem_dirty_track"),
        "lazy_pages": probe("uffd") and probe("uffd-noncoop"),
        "pidfd_store": probe("pidfd_store"),
    }


def _report(error: BaseException) -> None:
    command.report(error)
