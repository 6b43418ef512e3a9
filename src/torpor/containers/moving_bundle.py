"""A container of runc alone moves to another host, where the bundle that it was made from lies, too.

As one of Podman's does (:mod:`torpor.containers.moving`), but nobody keeps it besides: its root file system and the
network namespace that its configuration names are its user's, on both hosts.  The interfaces that are up in that
namespace are so there from "go" on, and down here: they bear the same addresses.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from torpor.base import log
from torpor.base.errors import RefusedError, TorporError
from torpor.base.ids import Pid
from torpor.base.records import dataclass
from torpor.containers import arriving_bundle, bundles, left_locked, note, waking
from torpor.containers.arriving import DOCUMENTS
from torpor.containers.asking import Asking
from torpor.containers.model import Container, Words
from torpor.containers.moving import Agreed, Move
from torpor.containers.oci import RUNC, state_root
from torpor.kernel import netdevice
from torpor.kernel.namespaces import CLONE_NEWNET, inside
from torpor.migrate import held_network, keeping, offer, protocol, source
from torpor.migrate.link import LinkLostError, Message
from torpor.migrate.source import Moved, Wishes
from torpor.migrate.way import Destination, Remote
from torpor.objects.cgroup import freezer

_IMAGES, _LOOK = "images", "look"


def migrate(container: Container, where: Destination, wishes: Wishes, words: Words, bundle: str = "") -> Moved | None:
    """See :func:`torpor.containers.moving.migrate`.  *bundle*: where it is there; "" for where it is here."""
    began = time.monotonic()
    config = bundles.read(Path(container.place))
    _check(container, config)
    made = offer.make(container.pid, container.name, {}, offer.CONTAINER)
    if wishes.persist:
        keeping.check(wishes.persist, made.memory_bytes)
    if not any(word == "tcp-established" for word, _ in words):
        words = [*words, ("tcp-established", "")]
    with ExitStack() as stack, Remote(where, source.remote_words(wishes), wishes.rsh) as remote:
        network = _Network(container, config)
        stack.callback(network.close)
        try:
            name, way = source.agree(
                remote.link, made, wishes, stack, engine=RUNC.name, bundle=bundle or container.place,
                words=[word for word, _ in words if word in arriving_bundle.WORDS], links=network.links,
            )  # fmt: skip
            if wishes.dry_run:
                remote.link.send(protocol.CANCEL)
                return None
            agreed = Agreed(remote.link, way, container, str(where), wishes, words, stack)
            return _BundleMove(agreed, network).run(name, made, began)
        except LinkLostError as error:
            remote.explain(error)
            raise


def _check(container: Container, config: dict[str, object]) -> None:
    """RefusedError for what cannot be moved."""
    if bundles.has_terminal(config):
        raise RefusedError(
            f"{container.label} has a terminal, whose other end stays on this host",
            hint='"terminal": false in the config.json of its bundle',
        )
    if group := freezer.frozen_group(Pid(container.pid)):
        raise RefusedError(
            f"{container.label} is frozen by the control group {group}: it is paused, or a checkpoint of it was killed",
            hint=f"runc resume {container.name}",
        )


@dataclass(slots=True)
class _Network:
    """The network namespace that the bundle names: *fd* is -1 where it names none."""

    fd: int
    links: list[str]

    def __init__(self, container: Container, config: dict[str, object]) -> None:
        self.fd, self.links = -1, []
        if bundles.network_of(config):
            self.fd = os.open(f"/proc/{container.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self.links = inside(self.fd, CLONE_NEWNET, netdevice.names_up)

    def leave(self, table: str) -> None:
        """What is known by its addresses is on another host now: nobody here answers for them."""
        if self.fd >= 0:
            inside(self.fd, CLONE_NEWNET, lambda: netdevice.set_up(self.links, up=False))
            held_network.let_go(self.fd, table, is_told=False)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class _BundleMove(Move):
    """Of a container of runc."""

    engine = RUNC.name

    def __init__(self, agreed: Agreed, network: _Network) -> None:
        super().__init__(agreed)
        self._network = network

    def _look(self) -> Message:
        """What runc says of it in a pre-dump; nothing is done for that."""
        place = self._home / _LOOK
        words = [*self._words, ("pre-dump", "")]
        with Asking(lambda: RUNC.checkpoint(self._container, place, words), RUNC.name, self._meeting) as runc:
            order = runc.order()
        shutil.rmtree(place)
        self._link.send(DOCUMENTS, descriptors=self._descriptors())
        return order

    def _descriptors(self) -> list[str]:
        """What standard input, output and error were when it was started."""
        state = json.loads(Path(state_root(RUNC.name), self._container.id, "state.json").read_text())
        return [str(each) for each in state["external_descriptors"]][:3]

    def _checkpoint(self) -> None:
        RUNC.checkpoint(self._container, self._home / _IMAGES, self._words)

    def _forget(self) -> None:
        with suppress(TorporError, OSError):
            for container in RUNC.find(self._container.id):
                RUNC.remove(container)
        try:
            self._network.leave(left_locked.table_of(self._images_here))
        except (TorporError, OSError) as error:
            log.warn(f"the network namespace of {self._container.label} is left locked here: {error}")

    def _wake(self) -> None:
        options = [word for word in self._words if word[0] in arriving_bundle.WORDS]
        told = note.read(self._images_here)
        assert told is not None
        waking.restore_directory(self._images_here, told, None, 1, options)

    @property
    def _kept(self) -> str:
        return str(self._images_here)

    @property
    def _images_here(self) -> Path:
        return self._home / _IMAGES

    @property
    def _by_hand(self) -> str:
        words = [f"--{word}" for word, _ in self._words if word in arriving_bundle.WORDS]
        return " ".join([self._kept, *words])
