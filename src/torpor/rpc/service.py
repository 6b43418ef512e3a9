"""Requests and their answers, in the order and with the numbers that CRIU's clients expect.

What is to be done is somebody else's (:class:`Work`); here is how it is asked for and what is said about it.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable

from torpor.base import log
from torpor.base.errors import ActionScriptError, NotPermittedError, TargetGoneError, TorporError, UsageError
from torpor.base.records import dataclass
from torpor.base.typed import Protocol
from torpor.images import messages as m
from torpor.kernel import errand
from torpor.kernel.arch import nr
from torpor.kernel.syscall import syscall
from torpor.kernel.uapi.prctl import PR_SET_PDEATHSIG
from torpor.rpc.channel import Channel, ClientError
from torpor.rpc.words import words_of

_TYPE = m.criu_req_type
#: After these the connection may stay open for more requests.
_REPEATABLE = (
    _TYPE.PAGE_SERVER, _TYPE.PAGE_SERVER_CHLD, _TYPE.CPUINFO_DUMP, _TYPE.CPUINFO_CHECK, _TYPE.FEATURE_CHECK,
    _TYPE.VERSION,
)  # fmt: skip
#: After a PRE_DUMP, and with no word about it, the connection stays open for these (SINGLE_PRE_DUMP is for one alone).
_AFTER_PRE_DUMP = (_TYPE.PRE_DUMP, _TYPE.DUMP)
_HIGHEST_PID = (1 << 22) - 1
#: Notifications that bear the root's pid.
_WITH_PID = ("setup-namespaces", "post-restore")


class Guard(Protocol):
    """Ends a tree that runs if we die."""

    def dismiss(self) -> None:
        """From now on our death changes nothing for it."""

    def bury(self) -> None:
        """And nothing is left of the guard: for who goes on to something else."""


@dataclass(frozen=True, slots=True)
class Order:
    """A dump or restore as it was asked for.

    ``words`` are those of a command line, ``config`` is a file whose options override them ("": none), ``pid`` the root
    to dump.  ``notify`` and ``orphan_master`` are None where the client does not want to be told.
    """

    words: list[str]
    config: str
    pid: int
    #: ``notify(action, pid)``: ActionScriptError where the client says no.
    notify: Callable[[str, int], None] | None
    #: Gets the master of a terminal whose slave is in the restored tree.
    orphan_master: Callable[[int], None] | None
    #: Gets the guard over a container that runs by then: until it is dismissed, that ends with us.
    guarded: Callable[[Guard], None]


class Server(Protocol):
    """A page server that listens."""

    @property
    def port(self) -> int:
        """The TCP port at which it listens."""

    def serve(self) -> None:
        """Serve the one who comes.  TorporError."""

    def close(self) -> None:
        """Stop listening: whoever connects from now on is refused."""


@dataclass(frozen=True, slots=True)
class Work:
    """What the service can do.  Each raises TorporError; ``restore`` gives the root's pid as we see it."""

    dump: Callable[[Order], None]
    pre_dump: Callable[[Order], None]
    restore: Callable[[Order], int]
    check: Callable[[Order], bool]
    cpuinfo: Callable[[str, Order], None]
    #: Listens already; whoever gets it has it serve, and closes it.
    page_server: Callable[[Order], Server]
    features: Callable[[], dict[str, bool]]
    #: Become the command that the client wants to be the parent of what was restored; returns only if it cannot.
    execute: Callable[[list[str]], None]
    #: Major, minor, sublevel, and what it is called.
    version: tuple[int, int, int, str]
    #: An exception (of any kind) as one line in the log.
    report: Callable[[BaseException], None]
    #: Whether the worker is the client's own (``criu swrk``), so that what it starts may outlive the connection.
    is_own: bool
    #: How long the client may keep its worker waiting for a request, unless it has pre-dumped; None: for ever.
    patience_s: float | None = None


def serve(channel: Channel, work: Work) -> bool:
    """Answer requests until the client has had enough; whether the last one succeeded."""
    pre_dumped = False
    while True:
        if work.patience_s is not None and not pre_dumped and not channel.wait(work.patience_s):
            return refuse(channel, f"nothing was asked for in {work.patience_s:g} s")
        try:
            request = channel.receive()
        except ClientError as error:
            work.report(error)
            return refuse(channel, "Invalid req")
        if request is None:
            return pre_dumped
        if pre_dumped and request.type not in _AFTER_PRE_DUMP:
            return refuse(channel, "Bad req seq")
        pre_dumped = request.type == _TYPE.PRE_DUMP
        if request.keep_open and not pre_dumped and request.type not in _REPEATABLE:
            return False
        succeeded = _Request(channel, work, request).run()
        if not (succeeded and (request.keep_open or pre_dumped)):
            return succeeded


def refuse(channel: Channel, text: str) -> bool:
    """Answer that nothing is done, and why; False."""
    log.error(f"RPC error: {text}")
    try:
        channel.send(m.criu_resp(type=_TYPE.EMPTY, success=False, cr_errmsg=text))
    except ClientError as error:
        log.debug(error.describe())
    return False


class _Request:
    """One request being worked on."""

    def __init__(self, channel: Channel, work: Work, request: m.criu_req) -> None:
        self._channel = channel
        self._work = work
        self._request = request
        self._guard: Guard | None = None

    def run(self) -> bool:
        """Do it and answer; whether it succeeded."""
        handlers = {
            _TYPE.DUMP: self._dump,
            _TYPE.RESTORE: self._restore,
            _TYPE.CHECK: self._check,
            _TYPE.PRE_DUMP: self._pre_dump,
            _TYPE.SINGLE_PRE_DUMP: self._pre_dump,
            _TYPE.VERSION: self._version,
            _TYPE.FEATURE_CHECK: self._features,
            _TYPE.CPUINFO_DUMP: self._cpuinfo,
            _TYPE.CPUINFO_CHECK: self._cpuinfo,
            _TYPE.WAIT_PID: self._wait_pid,
            _TYPE.PAGE_SERVER: self._page_server,
            _TYPE.PAGE_SERVER_CHLD: self._page_server,
        }
        handler = handlers.get(self._request.type)
        if handler is None:
            return refuse(self._channel, "Invalid req")
        response = m.criu_resp(type=self._request.type, success=False)
        log.forget_errors()  # of the same client's requests before
        try:
            handler(response)
            response.success = True
        except BaseException as error:
            self._work.report(error)
            if number := _number_of(error):
                response.cr_errno = number
            # Names of processes and files in it may hold any byte.
            text = log.first_error() or str(error)
            response.cr_errmsg = text.encode(errors="backslashreplace").decode()
            self._answer(response)
            if not isinstance(error, Exception):
                raise
            return False
        answered = self._answer(response)
        # A client that has heard nothing by our death makes another one of it; one that is gone has had its say.
        # By one that has heard of it our death is taken for a failure until we have ended: that is to be at once.
        if self._guard is not None:
            self._guard.dismiss()
        if answered and self._request.type == _TYPE.RESTORE and self._request.opts.exec_cmd:
            if self._guard is not None:
                self._guard.bury()
            self._channel.close()
            self._work.execute(list(self._request.opts.exec_cmd))
            return False
        return answered

    def _answer(self, response: m.criu_resp) -> bool:
        try:
            self._channel.send(response)
        except ClientError as error:
            # What was done is done: a restored tree runs on though nobody waits for it.
            self._work.report(error)
            return False
        return True

    # -- the requests -----------------------------------------------------------------------------------------

    def _dump(self, response: m.criu_resp) -> None:
        response.dump.restored = False
        self._work.dump(self._order())

    def _restore(self, response: m.criu_resp) -> None:
        # Required by the message, and what a client finds there after a failure.
        response.restore.pid = -1
        response.restore.pid = self._work.restore(self._order())

    def _pre_dump(self, response: m.criu_resp) -> None:
        self._work.pre_dump(self._order())

    def _check(self, response: m.criu_resp) -> None:
        if not self._work.check(self._order()):
            raise TorporError(log.first_error() or "the kernel lacks what checkpointing needs")

    def _cpuinfo(self, response: m.criu_resp) -> None:
        self._work.cpuinfo("dump" if self._request.type == _TYPE.CPUINFO_DUMP else "check", self._order())

    def _version(self, response: m.criu_resp) -> None:
        major, minor, sublevel, name = self._work.version
        response.version.major_number, response.version.minor_number = major, minor
        if sublevel:
            response.version.sublevel = sublevel
        response.version.name = name

    def _features(self, response: m.criu_resp) -> None:
        found = self._work.features()
        wanted = self._request.features
        response.features.mem_track = wanted.mem_track and found["mem_track"]
        response.features.lazy_pages = wanted.lazy_pages and found["lazy_pages"]
        response.features.pidfd_store = wanted.pidfd_store and found["pidfd_store"]

    def _wait_pid(self, response: m.criu_resp) -> None:
        if not 0 < self._request.pid <= _HIGHEST_PID:
            raise UsageError(f"there is no pid {self._request.pid}")
        response.status = os.waitpid(self._request.pid, 0)[1]

    def _page_server(self, response: m.criu_resp) -> None:
        server = self._work.page_server(self._order())
        is_orphan = self._request.type == _TYPE.PAGE_SERVER
        response.ps.port = server.port
        may_outlive = is_orphan or self._work.is_own
        response.ps.pid = _start(server, self._channel, self._work.report, is_orphan=is_orphan, may_outlive=may_outlive)
        server.close()

    # -- what a request says ----------------------------------------------------------------------------------

    def _order(self) -> Order:
        opts = self._request.opts
        if opts.HasField("status_fd"):
            opts.status_fd = self._channel.open_for_writing(opts.status_fd)
        tells = opts.notify_scripts
        return Order(
            words=words_of(opts, self._channel.place_of),
            config=opts.config_file,
            pid=opts.pid if opts.HasField("pid") and opts.pid else self._channel.peer_pid(),
            notify=self._notify if tells else None,
            orphan_master=self._give_master if tells and opts.orphan_pts_master else None,
            guarded=self._keep_guard,
        )

    def _keep_guard(self, guard: Guard) -> None:
        self._guard = guard

    def _notify(self, action: str, pid: int) -> None:
        self._tell(action, pid if action in _WITH_PID else 0, -1)

    def _give_master(self, fd: int) -> None:
        self._tell("orphan-pts-master", 0, fd)

    def _tell(self, action: str, pid: int, fd: int) -> None:
        response = m.criu_resp(type=_TYPE.NOTIFY, success=True, notify=m.criu_notify(script=action))
        if pid:
            response.notify.pid = pid
        self._channel.send(response, fd)
        answer = self._channel.receive()
        if answer is None:
            raise ClientError(f"the client went away at {action}")
        if answer.type != _TYPE.NOTIFY or not answer.notify_success:
            raise ActionScriptError(f"the client said no at {action}")


def _start(
    server: Server, channel: Channel, report: Callable[[BaseException], None], *, is_orphan: bool, may_outlive: bool
) -> int:
    """Have *server* serve in a process of its own: a child, that the client may wait for (WAIT_PID), or nobody's.

    A child that may not outlive us ends with us: once the client of a service has gone nobody would ever know of it.
    The one of a worker of the client's own does outlive it: go-criu ends its worker as soon as it has the answer.
    """
    told, tell = os.pipe()
    ours = os.getpid()
    with errand.deaf() as mask:
        first = os.fork()
        if not first:
            code = 1
            try:
                if is_orphan:
                    os.setsid()
                    if os.fork():
                        os._exit(0)
                elif not may_outlive:
                    syscall("prctl(PR_SET_PDEATHSIG)", nr.prctl, PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
                    if os.getppid() != ours:
                        os._exit(1)  # gone before it was said
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                os.write(tell, os.getpid().to_bytes(4, "little"))
                os.close(tell)
                channel.close()
                server.serve()
                code = 0
            except BaseException as error:
                report(error)
            finally:
                os._exit(code)
    os.close(tell)
    with open(told, "rb") as stream:
        pid = int.from_bytes(stream.read(4), "little")
    if is_orphan:
        os.waitpid(first, 0)
    return pid


def _number_of(error: BaseException) -> int:
    """The error number that CRIU's clients know."""
    for kind, number in (
        (UsageError, errno.EBADRQC), (TargetGoneError, errno.ESRCH), (NotPermittedError, errno.EPERM),
    ):  # fmt: skip
        if isinstance(error, kind):
            return number
    found = getattr(error, "errno", None)
    return found if isinstance(found, int) else 0
