"""A pod arrives from another host: it is made here, and its containers come into it, each by a migration of its own.

Its network is held back from before anything is in it.  Each container is rebuilt by a ``torpor receive`` of its own,
which tells us, at a Unix socket with an abstract name, that the source has given it up: when that is so of all, and not
before, all are let go.  Until then the end of any of us is the end of all.

offer                    what the pod is
begin                    Podman makes it: ``waits``, with the number by which its containers find us
(of each container)      joins; ``pod``, with what it needs to know; gone; ``go``
runs                     all have been let go
"""

from __future__ import annotations

import os
import secrets
import select
import time
from contextlib import ExitStack, suppress

from torpor.base.errors import EngineError, MigrationError, TorporError
from torpor.base.fds import OwnedFd
from torpor.base.records import dataclass
from torpor.containers import pods
from torpor.containers.arriving import BEGIN, MAX_NETWORKS, WAITS, network_problems, network_programs
from torpor.containers.commands import command_of
from torpor.containers.importing import Importer, MadePod
from torpor.containers.names import PODMAN
from torpor.engine import jobs
from torpor.kernel import mount
from torpor.migrate import destination, meeting, protocol
from torpor.migrate.destination import Received
from torpor.migrate.held_network import HeldNetwork
from torpor.migrate.link import FAILED, FailedThereError, Link, LinkLostError, Message
from torpor.migrate.offer import Offer

_JOINS, _POD, _GONE, _GO = "joins", "pod", "gone", "go"
_MADE_WITHIN_S, _JOINS_WITHIN_S = 120.0, 30.0
#: From the first that the source has given up to the last, here, and what one that has been given up waits for.
_ALL_GONE_WITHIN_S, _GO_WITHIN_S = 30.0, 45.0
_LOST_FOR_S, _UNDONE_WITHIN_S = 120.0, 60.0
_MAX_MEMBERS = 256
_UNPACKED = "unpacked"


def take(link: Link, message: Message, offered: Offer, name: str) -> Received | None:
    """Take the pod that *message* offers: see :func:`torpor.migrate.destination.receive`."""
    line = pods.create_line(name, message)
    n_members = message.number("members", 1, _MAX_MEMBERS)
    if problems := _problems(message, line, name):
        destination.refuse(link, problems)
        return None
    with Importer(jobs.state_directory() / _UNPACKED, link.close) as importer:
        with ExitStack() as stack:
            destination.accept(link, message, stack)
        if link.expect(BEGIN, protocol.CANCEL).name == protocol.CANCEL:
            return None
        try:
            made = _take(link, message, line, importer, n_members)
        except BaseException:
            importer.undo_pod(_UNDONE_WITHIN_S)
            raise
    with suppress(MigrationError):
        link.send(protocol.RUNS, pid=made.pid, name=name, us=0)
    return Received(name, made.pid)


def _take(link: Link, message: Message, line: list[str], importer: Importer, n_members: int) -> MadePod:
    """Have the pod made, and let go what comes into it, when all of that may run."""
    with ExitStack() as stack:
        token = secrets.token_hex(16)
        place = stack.enter_context(meeting.Meeting(_socket_of(token)))
        with HeldNetwork(network_programs(), importer.pid, token) as held:
            made = importer.make_pod(line, _MADE_WITHIN_S)
            held.settle(OwnedFd(os.open(f"/proc/{made.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)))
            table = held.table
        link.send(WAITS, token=token)
        pod = _Pod(made, table, place, link, stack, is_ipc_shared=message.flag("shares_ipc"))
        try:
            pod.wait_for_all(n_members)
            importer.keep_pod()
        except BaseException as error:
            pod.let_none_go(str(error) or "it was broken off")
            raise
        pod.let_go()
    return made


def _problems(message: Message, line: list[str], name: str) -> list[TorporError]:
    if not command_of("podman"):
        return [EngineError("there is no podman here")]
    found: list[TorporError] = []
    if pods.is_there(name) or PODMAN.exists(name):
        found.append(EngineError(f"there is a pod or container called {name} here", hint=f"podman pod rm {name}"))
    image = pods.image_of(line)
    if image and not PODMAN.has_image(image):
        found.append(EngineError(f"the image {image} is not here", hint=f"podman save {image} | ssh HOST podman load"))
    return [*found, *network_problems(message.entries("networks", MAX_NETWORKS))]


def _socket_of(token: str) -> str:
    return f"torpor-pod-{token}"


class _Pod:
    """Who waits until all of its containers have been given up there."""

    def __init__(
        self, made: MadePod, table: str, place: meeting.Meeting, link: Link, stack: ExitStack, *, is_ipc_shared: bool
    ) -> None:
        self._made, self._table, self._place, self._link, self._stack = made, table, place, link, stack
        self._is_ipc_shared = is_ipc_shared
        self._members: list[Link] = []
        self._gone: list[Link] = []

    def wait_for_all(self, n_members: int) -> None:
        """Until each of so many containers has been given up; MigrationError where one of them comes to nothing."""
        deadline: float | None = None
        sources = [self._link]
        while len(self._gone) < n_members:
            if self._gone and deadline is None:
                deadline = time.monotonic() + _ALL_GONE_WITHIN_S
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            members = [each for each in self._members if each not in self._gone]
            waiting = [self._place.fileno(), *(each.fileno() for each in (*sources, *members))]
            ready = select.select(waiting, (), (), left)[0]
            if not ready:
                raise MigrationError("the containers of the pod have not been given up together")
            for member in members:
                if member.fileno() in ready:
                    member.expect(_GONE)
                    self._gone.append(member)
            if self._place.fileno() in ready:
                self._let_join(n_members)
            if self._link.fileno() in ready:
                if self._is_over():
                    raise MigrationError("the source does not move the pod after all")
                if len(self._members) < n_members:
                    raise MigrationError("the link to the source has ended")
                # Whoever has them moved is gone; they may have been given up, and then they say so themselves.
                sources, deadline = [], deadline or time.monotonic() + _LOST_FOR_S

    def _is_over(self) -> bool:
        try:
            self._link.expect(protocol.CANCEL)
        except LinkLostError:
            return False
        return True

    def _let_join(self, n_members: int) -> None:
        member = self._place.accept()
        if member is None:
            return
        self._stack.callback(member.close)
        member.expect(_JOINS, timeout_s=_JOINS_WITHIN_S)
        if len(self._members) == n_members:
            raise MigrationError("more containers come than the pod has")
        self._members.append(member)
        shm = self._made.shm if self._is_ipc_shared else ""
        member.send(_POD, id=self._made.id, table=self._table, shm=shm)

    def let_none_go(self, why: str) -> None:
        """Tell all: once said, it is so."""
        for each in self._members:
            with suppress(MigrationError):
                each.send(FAILED, text=f"none of the pod is let go: {why}")

    def let_go(self) -> None:
        """All are here."""
        for each in self._members:
            with suppress(MigrationError):
                each.send(_GO)


@dataclass(frozen=True, slots=True)
class Membership:
    """What a container that comes into a pod knows of that: *table* holds its network back, *shm* is the /dev/shm."""

    link: Link
    id: str
    table: str
    shm: str

    def share_shm(self, place: str) -> None:
        """The pod's /dev/shm lies at *place*, where Podman has mounted one of the container's own (seen in 4.3)."""
        if self.shm and os.path.ismount(place) and not os.path.samefile(place, self.shm):
            mount.unmount(place)
            mount.mount(self.shm, place, None, mount.MS_BIND)

    def wait_for_others(self) -> str:
        """The source has given this one up: until all are; why none is let go, if that is known.

        MigrationError where it is not: then this one is not, and others may be.
        """
        try:
            self.link.send(_GONE)
            self.link.expect(_GO, timeout_s=_GO_WITHIN_S)
        except FailedThereError as error:
            return str(error)
        except LinkLostError as error:
            raise MigrationError(f"it is not known whether all of the pod may run: {error}") from None
        return ""


def join(token: str) -> Membership:
    """Come into the pod that the source knows by *token*; MigrationError where there is none."""
    is_token = len(token) == meeting.TOKEN_LENGTH and not set(token) - set("0123456789abcdef")
    end = meeting.knock(_socket_of(token)) if is_token else None
    if end is None:
        raise MigrationError("there is no pod here that it could come into")
    link = meeting.link_of(end, "the pod's migration")
    try:
        link.send(_JOINS)
        told = link.expect(_POD, timeout_s=_JOINS_WITHIN_S)
        return Membership(link, told.text("id"), told.text("table"), told.text("shm"))
    except BaseException:
        link.close()
        raise
