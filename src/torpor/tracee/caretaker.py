"""A process that undoes what a dump or a restore changed outside of the tree, should we die before we do so ourselves.

It is a fork of ours, made before it is needed, that waits on a socket: each message says what is to be undone, and
brings the descriptors for it.  When the socket closes without a farewell, which our death does, it undoes everything,
the newest first.  Say first, then change: between the two we may die as well.  That is some 50 us after our tracees
have been let go by the kernel; for what none of them may see, our death is made to wait (``ahead``).

What can be undone: an option of a socket, a message sent to the kernel (by netlink, or a control group's file), what an
eventfd counts, a directory made, what a control group hands on, a program run in some network namespace, a snapshot of
a task; or the end of the tree is brought about, when that has begun, or what it takes for one to go on (packets,
connections asked for).
Signals that ask a process to end are nothing to it.
"""

from __future__ import annotations

import _socket as socket
import errno
import marshal
import os
import struct
from _thread import get_native_id
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from torpor.base.errors import TorporError
from torpor.base.ids import Pid
from torpor.base.typed import TYPE_CHECKING
from torpor.kernel import errand, signal
from torpor.kernel.arch import nr
from torpor.kernel.namespaces import CLONE_NEWNET, isolated, setns
from torpor.kernel.rlimits import raise_descriptor_limit
from torpor.kernel.sockets import Borrowed, Socket, pair
from torpor.kernel.syscall import syscall

if TYPE_CHECKING:
    from torpor.tracee.witness import Witness

_OPTION, _SEND, _RUN, _SIGNAL, _REMOVE, _WATCH, _LIMIT, _COUNT, _REAP, _CONNECT, _WITHHOLD = range(11)
_ADD, _DROP, _FAREWELL, _STAY, _AHEAD, _BEHIND = range(6)
#: Descriptors that one message may bring (SCM_MAX_FD is 253), and room for a message.
_MAX_FDS = 250
_ROOM = 1 << 17
_LAST_FD = (1 << 32) - 1
#: How often a directory is tried to be removed that is still in use, and how long it is left between.
_ATTEMPTS = 200
_PAUSE_S = 0.01
Step = tuple[int, int, object]


def option(fd: int, level: int, name: int, value: int) -> Step:
    """setsockopt(2) on *fd*; a failure is passed over."""
    return options(fd, [(level, name, value)])


def options(fd: int, settings: Sequence[tuple[int, int, int]]) -> Step:
    """The same several times (level, name, value), up to the first that fails.  Its *fd* is closed at once then."""
    return _OPTION, fd, list(settings)


def connect(fd: int, family: int, address: tuple[object, ...]) -> Step:
    """connect(2), which is not waited for: BlockingIOError is what is to be expected of it."""
    return _CONNECT, fd, (family, address)


def send(fd: int, message: bytes) -> Step:
    """send(2) by the socket *fd*."""
    return _SEND, fd, message


def count(fd: int, value: int) -> Step:
    """Have the eventfd *fd* say *value*."""
    return _COUNT, fd, value


def run(netns: int, argv: Sequence[str], text: bytes) -> Step:
    """Run a program with *text* as its input, in the network namespace behind the descriptor *netns*."""
    return _RUN, netns, (list(argv), text)


def signal_to(pidfd: int, number: int) -> Step:
    """Send a signal.  What follows SIGKILLs, in the same ``add``, is done once all who got one have ended."""
    return _SIGNAL, pidfd, int(number)


def limit(pidfd: int, *words: int) -> Step:
    """:func:`torpor.kernel.rlimits.set_limit` with these *words*."""
    return _LIMIT, pidfd, words


def reap(pidfd: int, parent: Pid, child: Pid, number: int) -> Step:
    """:func:`torpor.tracee.snapshot.reap_left`; *pidfd* is the parent's."""
    return _REAP, pidfd, (parent, child, number)


def remove(directory: int, name: str) -> Step:
    """Remove the directory *name* below *directory*, once it is no longer in use: a control group, of dying tasks."""
    return _REMOVE, directory, name


def withhold(directory: int, controller: str) -> Step:
    """Have the control group (v2) *directory* hand *controller* on no more, unless there are any below it by then."""
    return _WITHHOLD, directory, controller


class Caretaker:
    """Made by us; ``dismiss`` ends it."""

    def __init__(self) -> None:
        import torpor.tracee.witness  # noqa: F401  # for the child, who has no time for that

        near, far = pair(socket.SOCK_SEQPACKET)
        self._next = 0
        self._is_announced = False
        self._hears = True
        with far, errand.deaf() as mask:
            self._pid = os.fork()
            if not self._pid:
                try:
                    _detach(far.fileno())
                    errand.hear(mask)
                    _wait(far)
                finally:
                    os._exit(0)
        self._socket = near

    def add(self, steps: Sequence[Step], *, instead_of: Sequence[int] = ()) -> list[int]:
        """From now on our death has *steps* done, in that order, and not those of some keys; keys for ``drop``.

        It is one change: whenever we die, all of *steps* are done and none of the others, or the other way round.
        """
        if not steps and not self._is_announced:
            self.drop(instead_of)
            return []
        self._next += 1
        self._is_announced = False
        last = max(len(steps) - 1, 0) // _MAX_FDS * _MAX_FDS
        for at in range(0, last, _MAX_FDS):
            self._say(steps[at : at + _MAX_FDS], None)
        self._say(steps[last:], list(instead_of))
        return [self._next]

    def announce(self, steps: Sequence[Step]) -> None:
        """The first steps of the next ``add``, said beforehand, for that to be short: they are nothing until it."""
        self._is_announced = self._is_announced or bool(steps)
        for at in range(0, len(steps), _MAX_FDS):
            self._say(steps[at : at + _MAX_FDS], None)

    def _say(self, steps: Sequence[Step], dropped: list[int] | None) -> None:
        fds = struct.pack(f"={len(steps)}i", *(step[1] for step in steps))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if steps else []
        data = marshal.dumps((_ADD, self._next, [(kind, args) for kind, _, args in steps], dropped))
        with suppress(BrokenPipeError):
            self._socket.sendmsg([data], rights, socket.MSG_NOSIGNAL)

    def drop(self, keys: Sequence[int]) -> None:
        """Forget what was added under *keys*."""
        self._tell(_DROP, keys)

    @contextmanager
    def ahead(self) -> Iterator[None]:
        """Within the block the death of this thread, by SIGKILL too, waits until all is undone: no tracee sees it.

        It costs two switches to the caretaker and back, and as much for each signal that comes (the SIGCHLD of a
        tracee's stop is one).  Where this thread cannot be traced, by a debugger's being there, say, nothing is gained.
        """
        self._tell(_AHEAD, [get_native_id()])
        with suppress(OSError):
            self._socket.recv(1)
        try:
            yield
        finally:
            self._tell(_BEHIND, [])

    def release(self) -> None:
        """It ends without doing anything, and holds nothing open for longer than that takes; ``dismiss`` waits."""
        self._tell(_FAREWELL, [])
        self._hears = False

    def dismiss(self) -> None:
        """It ends without doing anything, and has ended when this returns."""
        self._end(_FAREWELL, [])

    def relieve(self) -> None:
        """It does everything as if we had died, and has ended when this returns."""
        self._end(None, [])

    def stay(self, processes: Sequence[tuple[int, int]], at_end: Sequence[Step]) -> None:
        """It stays beside a stopped tree, and we have nothing to do with it any more.

        *processes*: pids and pidfds, the root first.  When one of them goes on, everything is undone as if we had died;
        when all are dead, *at_end* is done instead.
        """
        keys = self.add([*((_WATCH, pidfd, pid) for pid, pidfd in processes), *at_end])
        self._end(_STAY, keys)

    def _end(self, action: int | None, keys: Sequence[int]) -> None:
        if self._pid:
            if action is not None:
                self._tell(action, keys)
            self._socket.close()
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._pid = 0

    def _tell(self, action: int, keys: Sequence[int]) -> None:
        if self._pid and self._hears:
            with suppress(BrokenPipeError):
                self._socket.send(marshal.dumps((action, 0, [], list(keys))), socket.MSG_NOSIGNAL)


# -- the child ------------------------------------------------------------------------------------------------


def _wait(connection: Socket) -> None:
    pending: dict[int, list[Step]] = {}
    unfinished: list[Step] = []
    for action, key, steps, dropped in _iter_messages(connection):
        if action == _FAREWELL:
            return
        if action == _STAY:
            assert dropped is not None
            connection.close()
            if not os.fork():  # who made us waits for the end of this process
                _stay([step for each in dropped for step in pending.pop(each)], pending)
            return
        if action == _ADD:
            unfinished += steps
            if dropped is None:
                continue
            pending[key], unfinished = unfinished, []
        for old in dropped or ():
            for _, fd, _ in pending.pop(old, []):
                os.close(fd)
    for _, fd, _ in unfinished:  # of what is only announced nothing may be in use
        os.close(fd)
    for todo in reversed(pending.values()):
        _do_all(todo)


def _iter_messages(connection: Socket) -> Iterator[tuple[int, int, list[Step], list[int] | None]]:
    """Action, key, steps and keys to drop (None: more follows), until who says it is dead, or is about to be."""
    witness: Witness | None = None
    flags = socket.MSG_CMSG_CLOEXEC
    while True:
        if witness is not None and witness.wait():
            flags |= socket.MSG_DONTWAIT  # what has been said so far, and then to work, while who said it stands still
        try:
            data, control, _, _ = connection.recvmsg(_ROOM, socket.CMSG_SPACE(_MAX_FDS * 4), flags)
        except (InterruptedError, ConnectionResetError):
            continue  # the latter where our answer was not read; what has been said is still to come
        except BlockingIOError:
            return
        if not data:
            return
        action, key, steps, dropped = marshal.loads(data)
        if action == _AHEAD:
            witness = _watch(dropped[0], connection)
        elif action == _BEHIND:
            if witness is not None:
                witness.close()
            witness = None
        else:
            fds = [fd for _, _, content in control for (fd,) in struct.iter_unpack("=i", content)]
            yield action, key, [(kind, fd, args) for (kind, args), fd in zip(steps, fds, strict=True)], dropped


def _watch(tid: int, connection: Socket) -> Witness | None:
    from torpor.tracee.witness import Witness  # our maker has imported it

    witness = None
    with suppress(OSError):
        witness = Witness(Pid(tid), connection.fileno())
    with suppress(OSError):  # dead already: that is heard of
        connection.send(b"1", socket.MSG_NOSIGNAL)
    return witness


def _stay(steps: list[Step], pending: dict[int, list[Step]]) -> None:
    from torpor.tracee.vigil import keep

    watched = [(Pid(pid), fd) for kind, fd, pid in steps if kind == _WATCH and isinstance(pid, int)]
    if keep(watched):
        _do_all(steps[len(watched) :])
    else:
        for todo in reversed(pending.values()):
            _do_all(todo)


def _do_all(steps: Sequence[Step]) -> None:
    killed: list[int] = []
    for step in steps:
        kind, fd, args = step
        if kind != _SIGNAL:
            _wait_ended(killed)
        elif args == signal.SIGKILL:
            killed.append(fd)
        with suppress(OSError, TorporError):
            do(step)
        if kind == _OPTION:
            os.close(fd)
    _wait_ended(killed)


def _wait_ended(pidfds: list[int]) -> None:
    """Wait until all these processes have ended, and forget them."""
    import select

    while pidfds:
        poller = select.poll()
        poller.register(pidfds.pop(), select.POLLIN)
        poller.poll()


def _detach(keep: int) -> None:
    """Out of our process group, which a terminal may signal, and without our descriptors, which others may wait for."""
    os.setsid()
    raise_descriptor_limit()
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(ignored, signal.SIG_IGN)
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        if number != keep:
            os.dup2(null, number)
    start = 3
    if keep >= start:
        if keep > start:
            syscall("close_range", nr.close_range, start, keep - 1, 0)
        start = keep + 1
    syscall("close_range", nr.close_range, start, _LAST_FD, 0)


def do(step: Step) -> None:
    """One step, by this process; OSError when it fails."""
    kind, fd, args = step
    if kind == _OPTION:
        assert isinstance(args, list)
        with Borrowed(fd) as connection:
            for level, name, value in args:
                connection.setsockopt(level, name, value)
    elif kind == _CONNECT:
        assert isinstance(args, tuple)
        family, address = args
        is_blocking = os.get_blocking(fd)
        os.set_blocking(fd, False)
        try:
            with Borrowed(fd, family) as connection:
                connection.connect(address)
        finally:
            os.set_blocking(fd, is_blocking)
    elif kind == _SEND:
        os.write(fd, args)  # type: ignore[arg-type]
    elif kind == _RUN:
        assert isinstance(args, tuple)
        argv, text = args

        def work() -> int:
            setns(fd, CLONE_NEWNET)
            return feed(argv, text)

        isolated(work)
    elif kind == _SIGNAL:
        assert isinstance(args, int)
        signal.pidfd_send_signal(fd, args)
    elif kind == _LIMIT:
        from torpor.kernel import rlimits

        assert isinstance(args, tuple)
        signal.pidfd_send_signal(fd, 0)  # still the same process
        rlimits.set_limit(*args)
    elif kind == _COUNT:
        from torpor.kernel import eventfd

        assert isinstance(args, int)
        eventfd.set_count(fd, args)
    elif kind == _REAP:
        from torpor.tracee import snapshot

        assert isinstance(args, tuple)
        snapshot.reap_left(fd, *args)
    elif kind == _REMOVE:
        assert isinstance(args, str)
        _remove(fd, args)
    elif kind == _WITHHOLD:
        assert isinstance(args, str)
        _withhold(fd, args)


def _withhold(directory: int, controller: str) -> None:
    with os.scandir(directory) as found:
        if any(item.is_dir(follow_symlinks=False) for item in found):
            return  # theirs would be gone, limits and all
    control = os.open("cgroup.subtree_control", os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(control, f"-{controller}".encode())
    finally:
        os.close(control)


def _remove(directory: int, name: str) -> None:
    import time

    for _ in range(_ATTEMPTS):
        try:
            os.rmdir(name, dir_fd=directory)
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                return
        time.sleep(_PAUSE_S)


def feed(argv: Sequence[str], text: bytes) -> int:
    """Run a program with *text* (less than a pipe holds) as its input and its output thrown away; its exit code.

    It is born into the network namespace of the calling thread.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        os.write(writer, text)
        os.close(writer)
        silence = [(os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_WRONLY, 0) for number in (1, 2)]
        pid = os.posix_spawnp(
            argv[0], list(argv), os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, reader, 0), *silence]
        )
    finally:
        os.close(reader)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
