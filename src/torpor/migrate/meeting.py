"""Where the engine of a container runtime (``criu swrk``) meets the migration that its container is under way by.

Both are processes of one host: the runtime has started one, ``torpor migrate`` or ``torpor receive`` is the other.  A
migration waits at a Unix socket with an abstract name, which nothing is left of when it has ended, and each side looks
at whose the other one is.  A dump is known by the root's pid; a restore by a number that only the images tell.

    engine                  migration at the source
    dump                                         what is asked for, in the words of the options
                            tell                 the runtime is to be told of a stage
    yes, no
                            given                it has been killed, and its images are whole
                            done                 all that was asked for has been done

    engine                  migration at the destination
    restore                                      the file system, and the mounts, are there
                            images               of a round, and where each of them lies
    taken
                            images               the last ones
    ready                                        all is rebuilt, and nothing of it runs
                            go
    done                                         it runs
"""

from __future__ import annotations

import _socket as socket
import os
from collections.abc import Callable

from torpor.base.errors import ActionScriptError, MigrationError, TorporError
from torpor.base.fds import Closing
from torpor.base.typed import TYPE_CHECKING, Any
from torpor.kernel.sockets import Socket, is_one_of_us

if TYPE_CHECKING:
    from torpor.images.stores.spooled import PlacedStore, SpooledStore
    from torpor.migrate.link import Link, Message

#: The image that says for which migration a restore is.
MARK = "torpor-arrival"
DUMP, TELL, YES, NO, GIVEN, DONE, RESTORE, IMAGES, TAKEN, READY, GO = (
    "dump", "tell", "yes", "no", "given", "done", "restore", "images", "taken", "ready", "go",
)  # fmt: skip
#: Of the numbers that others are found by, in hexadecimal digits.
TOKEN_LENGTH = 32
_LOOK_EVERY_MS = 200
_TAKEN_WITHIN_S = 600.0


def of_dump(pid: int) -> str:
    """Where the dump of *pid* is waited for."""
    return f"torpor-moves-{os.stat('/proc/self/ns/pid').st_ino}-{pid}"


def of_restore(token: str) -> str:
    """Where the restore that *token* marks is waited for."""
    return f"torpor-arrives-{token}"


def knock(name: str) -> Socket | None:
    """A connection to who waits under *name*, if that is one of ours."""
    found = Socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        found.connect(f"\0{name}")
        if is_one_of_us(found):
            return found
    except OSError:
        pass
    found.close()
    return None


def link_of(end: Socket, peer: str) -> Link:
    """The connection as a link."""
    from socket import socket as full_socket

    from torpor.migrate.link import own_socket

    return own_socket(full_socket(fileno=end.detach()), peer)


class Meeting(Closing):
    """A place to be waited at, under *name*; MigrationError if somebody else waits there."""

    def __init__(self, name: str) -> None:
        self._socket = Socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.bind(f"\0{name}")
            self._socket.listen(4)
        except OSError as error:
            self._socket.close()
            raise MigrationError(f"it is under way already ({error.strerror})") from None

    def wait(self, timeout_s: float, check: Callable[[], None]) -> Link:
        """Whoever comes; MigrationError where nobody does.  *check* raises what there is no point in waiting after."""
        import select
        import time

        deadline = time.monotonic() + timeout_s
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        while time.monotonic() < deadline:
            if not poll.poll(_LOOK_EVERY_MS):
                check()
                continue
            if (link := self.accept()) is not None:
                return link
        raise MigrationError(f"the container's engine has not asked for anything for {timeout_s:.0f} s")

    def accept_if_any(self) -> Link | None:
        """As ``accept``, and None where nobody has come."""
        import select

        return self.accept() if select.select([self._socket], (), (), 0)[0] else None

    def accept(self) -> Link | None:
        """Who has come, if that is one of ours; None for anybody else."""
        end = self._socket.accept_one()
        if is_one_of_us(end):
            return link_of(end, "the engine")
        end.close()
        return None

    def fileno(self) -> int:
        """To wait with."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()


# -- the engine at the source ----------------------------------------------------------------------------------------


def ask_to_dump(
    end: Socket, told: dict[str, dict[str, Any]], images: str, notify: Callable[[str, int], None], **more: object
) -> None:
    """Have the migration at the other end dump, as *told*, into the directory *images*; the errors of a dump.

    Where it dies once the tree has been given up, that is no error: the checkpoint is there.
    """
    link, is_given = link_of(end, "torpor migrate"), False
    try:
        link.send(DUMP, told=repr(told), images=images, **more)
        while (message := link.expect(TELL, GIVEN, DONE)).name != DONE:
            if message.name == GIVEN:
                is_given = True
                continue
            try:
                notify(message.text("action"), message.number("pid"))
            except TorporError as error:
                link.send(NO, text=str(error))
            else:
                link.send(YES)
    except MigrationError:
        if not is_given:
            raise
    finally:
        link.close()


# -- the migration at the source -------------------------------------------------------------------------------------


def told_of(message: Message) -> dict[str, dict[str, Any]]:
    """The options in an engine's ``dump``."""
    import ast

    try:
        found = ast.literal_eval(message.text("told"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        message.refuse("told")
    if not isinstance(found, dict):
        message.refuse("told")
    return found


def teller(link: Link) -> Callable[[str, int], None]:
    """A notifier that has the engine tell its runtime."""

    def tell(action: str, pid: int) -> None:
        link.send(TELL, action=action, pid=pid)
        answer = link.expect(YES, NO)
        if answer.name == NO:
            raise ActionScriptError(answer.text("text"))

    return tell


# -- the engine at the destination -----------------------------------------------------------------------------------


def arrival(directory: str) -> Link | None:
    """The migration that what is to be restored from *directory* comes by; None where it lies there.

    MigrationError where that is over.
    """
    try:
        fd = os.open(os.path.join(directory, MARK), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        token = os.read(fd, 64).decode("ascii", "replace")
    finally:
        os.close(fd)
    is_token = len(token) == TOKEN_LENGTH and all(each in "0123456789abcdef" for each in token)
    end = knock(of_restore(token)) if is_token else None
    if end is None:
        raise MigrationError("this is a container that was on its way here, and its migration is over")
    return link_of(end, "torpor receive")


def take_images(link: Link, then: Callable[[PlacedStore, int], None]) -> PlacedStore:
    """The images, when they have come; they stay the other side's as well.

    Of each round before the last, *then* is told, and of the pid of the root in them.
    """
    import json

    from torpor.images.stores.spooled import PlacedStore, Spool

    store: PlacedStore | None = None
    while True:
        message = link.expect(IMAGES)
        layout = bytearray()
        while block := link.read(1 << 20):
            layout += block
        fd, found = json.loads(layout)
        places = {name: (start, length) for name, start, length in found}
        opened = os.open(f"/proc/{message.number('pid')}/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        store = PlacedStore(message.text("name"), Spool(None, opened=opened), places, parent=store)
        if message.flag("last"):
            return store
        then(store, message.number("root", 1, 1 << 22))
        link.send(TAKEN)


# -- the migration at the destination --------------------------------------------------------------------------------


def give_images(link: Link, images: SpooledStore, *, root: int = 0) -> None:
    """Tell the engine where they lie: those of a round, of which the tree's root is *root*, or (0) the last ones."""
    import json

    fd, places = images.hand_over()
    link.send(IMAGES, pid=os.getpid(), name=images.path, root=root, last=not root)
    link.send_data(json.dumps((fd, [(name, *place) for name, place in places.items()])).encode())
    link.end_data()
    if root:
        link.expect(TAKEN, timeout_s=_TAKEN_WITHIN_S)
