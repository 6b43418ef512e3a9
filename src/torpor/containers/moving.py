"""A container of Podman moves to another host: its own ``podman container checkpoint`` there, ``restore`` here, and the
archive between the two goes over the link of a migration.

It is stopped from its checkpoint on.  Until the destination has the whole archive, and whenever it says that it cannot
restore it, the container is restored where it was.  Once the destination has been told to, it is never restored here by
itself as long as that is silent: its checkpoint stays in Podman's storage, to be restored by hand.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path

from torpor.base.errors import EngineError, MigrationError, TorporError, UnknownEndError
from torpor.containers.commands import command_of, run
from torpor.containers.model import Container, Words
from torpor.containers.names import PODMAN
from torpor.engine import jobs, scratch
from torpor.images.stores.spooled import Spool
from torpor.migrate import destination, offer, protocol, source
from torpor.migrate.destination import Received
from torpor.migrate.link import FailedThereError, Link, LinkLostError, Message
from torpor.migrate.metered import Metered
from torpor.migrate.offer import Offer
from torpor.migrate.source import Moved, Wishes
from torpor.migrate.way import Destination, Remote

_CHUNK = 1 << 20
#: What a restore may be told that the checkpoint was.
_WORDS = ("tcp-established", "file-locks")
_MAX_NETWORKS = 64
_RESTORE_S = 300.0


def migrate(container: Container, where: Destination, wishes: Wishes, words: Words) -> Moved | None:
    """Move *container* to the host *where*, with options of Podman's; None for a dry run.

    MigrationError, EngineError: it runs on here.  UnknownEndError: it does not run here, and perhaps there.
    """
    began = time.monotonic()
    told = json.loads(run("podman", "container", "inspect", container.id))[0]
    problems, _ = PODMAN.foresee(container)
    if problems:
        raise problems[0]
    networks = list((told.get("NetworkSettings") or {}).get("Networks") or {})
    made = offer.make(container.pid, container.name, {}, offer.CONTAINER)
    with Remote(where, source.remote_words(wishes), wishes.rsh) as remote, ExitStack() as stack:
        try:
            name, way = source.agree(
                remote.link, made, wishes, stack, image=str(told.get("ImageName", "")), networks=networks,
                words=[word for word, _ in words if word in _WORDS],
            )  # fmt: skip
            if wishes.dry_run:
                remote.link.send(protocol.CANCEL)
                return None
            return _Move(remote.link, way, container, where, wishes).run(name, words, made, began)
        except LinkLostError as error:
            remote.explain(error)
            raise


class _Move:
    """One in progress."""

    def __init__(self, link: Link, way: Metered, container: Container, where: Destination, wishes: Wishes) -> None:
        self._link, self._way, self._container, self._host, self._wishes = link, way, container, str(where), wishes

    def run(self, name: str, words: Words, made: Offer, began: float) -> Moved:
        """Do it."""
        with scratch.directory(source.home()) as room:
            archive = room / "container.tar"
            stopped = time.monotonic()
            PODMAN.checkpoint(self._container, archive, words)
            try:
                self._link.send(protocol.IMAGES, last=True)
                self._send(archive)
                self._link.expect(protocol.READY)
                self._link.send(protocol.GO)
                runs = self._hear_end()
            except UnknownEndError:
                raise
            except BaseException as error:
                if isinstance(error, LinkLostError):
                    error = self._link.why(error)
                self._restore_here(archive, words, error)
                raise error from None
            downtime_s = time.monotonic() - stopped
        if not self._wishes.keep_source:
            self._forget()
        return Moved(
            self._host, name, runs.number("pid"), runs.number("processes", default=0), made.memory_bytes,
            self._way.n_sent, downtime_s, time.monotonic() - began,
            kept="podman's storage" if self._wishes.keep_source else "",
        )  # fmt: skip

    def _send(self, archive: Path) -> None:
        with open(archive, "rb", buffering=0) as stream:
            while block := stream.read(_CHUNK):
                self._way.write(block)
        self._way.finish()

    def _hear_end(self) -> Message:
        """That it runs there.  FailedThereError where it does not; UnknownEndError where nobody says."""
        try:
            return self._link.expect(protocol.RUNS, timeout_s=_RESTORE_S)
        except FailedThereError:
            raise
        except MigrationError as error:
            label = self._container.label
            raise UnknownEndError(
                f"{label} does not run here any more, and whether it runs on {self._host} is not known: {error}",
                hint=f"look on {self._host}; if it does not run there: torpor restore {label}",
            ) from None

    def _restore_here(self, archive: Path, words: Words, error: BaseException) -> None:
        """It goes on where it was; *error* is told what came of that."""
        label, options = self._container.label, [word for word in words if word[0] in _WORDS]
        try:
            if PODMAN.find(self._container.id):
                PODMAN.restore(self._container, options)
            else:
                PODMAN.restore_archive(archive, self._container.name, None, options)
            error.add_note(f"{label} runs on here")
        except TorporError as failure:
            error.add_note(f"{label} could not be restored here: {failure.describe()}")

    def _forget(self) -> None:
        if PODMAN.find(self._container.id):
            PODMAN.remove(self._container)


# -- the destination -----------------------------------------------------------------------------------------------


def take(link: Link, message: Message, offered: Offer, name: str) -> Received | None:
    """Take the container that *message* offers: see :func:`torpor.migrate.destination.receive`."""
    words = [(str(word), "") for word in message.entries("words", len(_WORDS)) if word in _WORDS]
    if problems := _problems(message, name):
        destination.refuse(link, problems)
        return None
    room = jobs.state_directory() / "unpacked"
    with ExitStack() as stack:
        incoming = destination.accept(link, message, stack)
        if link.expect(protocol.IMAGES, protocol.CANCEL).name == protocol.CANCEL:
            return None
        place = stack.enter_context(scratch.directory(room)) / "container.tar"
        with open(place, "xb", buffering=0) as stream, Spool(place.parent) as room_for:
            while block := incoming.read(_CHUNK):
                room_for.check_room("the archive", len(block))
                stream.write(block)
        link.send(protocol.READY)
        link.expect(protocol.GO, timeout_s=protocol.GO_WITHIN_S)
        made = PODMAN.restore_archive(place, name, name if name != offered.name else None, words)
    link.send(protocol.RUNS, pid=made.container.pid, name=made.container.name)
    return Received(made.container.name, made.container.pid)


def _problems(message: Message, name: str) -> list[TorporError]:
    """What stands in the way of this container here."""
    if not command_of("podman"):
        return [EngineError("there is no podman here")]
    found: list[TorporError] = []
    image = message.text("image", "")
    if any(each.name == name for each in PODMAN.containers()):
        found.append(
            EngineError(f"there is a container called {name} here", hint="--name calls the one that comes otherwise")
        )
    if image and not image.startswith("-") and not PODMAN.has_image(image):
        found.append(EngineError(f"the image {image} is not here", hint=f"podman save {image} | ssh HOST podman load"))
    known = set(run("podman", "network", "ls", "--format", "{{.Name}}").split())
    for network in message.entries("networks", _MAX_NETWORKS):
        if str(network) not in known:
            found.append(EngineError(f"there is no network called {network} here", hint="podman network create"))
    return found
