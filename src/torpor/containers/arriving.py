"""A container of Podman arrives from another host: Podman here makes it, up to our engine, which waits there.

documents                what Podman is to make: its configuration and network, and what it has said
images                   rounds of memory, while it runs elsewhere
begin                    Podman restores it, until it has our engine restore what is in it: ``waits``
files                    what has been written in it, as often as is wished
images (last), files     it is stopped there
rebuild                  our engine does: ``ready``
go                       it is ours
"""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torpor.base import log
from torpor.base.errors import EngineError, MigrationError, TorporError
from torpor.base.fds import OwnedFd
from torpor.containers.commands import command_of, run
from torpor.containers.importing import Importer
from torpor.containers.layer import Copy
from torpor.containers.names import PODMAN
from torpor.containers.oci import RUNC
from torpor.engine import jobs
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.pages import MAX_PARENTS
from torpor.images.store import store_one
from torpor.images.stores.memory import MemStore
from torpor.images.stores.spooled import Spool, SpooledStore
from torpor.migrate import data, destination, meeting, protocol
from torpor.migrate.destination import Received
from torpor.migrate.held_network import HeldNetwork
from torpor.migrate.link import Link, LinkLostError, Message
from torpor.migrate.offer import Offer
from torpor.objects.ns.mnt.external import sources_by_key

if TYPE_CHECKING:
    from torpor.containers.arriving_pod import Membership

#: What a restore may be told that the checkpoint was.
WORDS = ("tcp-established", "file-locks")
#: The engine that the offer of a pod names.
POD = "pod"
#: Further words of the two sides, beside those of :mod:`torpor.migrate.protocol`.
DOCUMENTS, BEGIN, WAITS, FILES, FILED, REBUILD = "documents", "begin", "waits", "files", "filed", "rebuild"
#: Of a pod, instead of "runs": none of its containers has been let go, nor will be.
NONE_RUNS = "none-runs"
#: What is taken of an archive of Podman's.
NAMES = ("config.dump", "spec.dump", "network.status")
LOG = "ctr.log"
#: Parts of a container that files go to.
ROOT, SHM, VOLUME = "root", "shm", "volume:"
#: So long does Podman itself wait for a restore.
WAITS_WITHIN_S = 240.0
#: What has been written since the pass before is little; it may have to go to a slow disk.
FILED_WITHIN_S = 60.0
_RUNS_WITHIN_S, _SAYS_WITHIN_S = 60.0, 30.0
MAX_NETWORKS, _MAX_VOLUMES, _MAX_DOCUMENT, _CHUNK = 64, 256, 3 << 20, 1 << 20
#: As Podman has it.
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_UNPACKED = "unpacked"
#: Where that is in each of them, and what its place on the host ends in.
SHM_POINT, _SHM_END = "/dev/shm", "/userdata/shm"
#: Programs that set up the networks of containers.
_NETAVARK = tuple(
    f"{place}/netavark"
    for place in ("/usr/lib/podman", "/usr/libexec/podman", "/usr/local/lib/podman", "/usr/local/libexec/podman")
)
_CNI = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")


def take(link: Link, message: Message, offered: Offer, name: str) -> Received | None:
    """Take the container that *message* offers: see :func:`torpor.migrate.destination.receive`."""
    if message.text("engine", PODMAN.name) == RUNC.name:
        from torpor.containers import arriving_bundle

        return arriving_bundle.take(link, message, offered, name)
    if message.text("engine", PODMAN.name) == POD:
        from torpor.containers import arriving_pod

        return arriving_pod.take(link, message, offered, name)
    words = [(str(word), "") for word in message.entries("words", len(WORDS)) if word in WORDS]
    volumes = list(_volumes_of(message))
    if problems := [*_problems(message, name), *_of_volumes(volumes)]:
        destination.refuse(link, problems)
        return None
    if volumes:
        words.append(("ignore-volumes", ""))
    with ExitStack() as stack:
        importer = stack.enter_context(Importer(jobs.state_directory() / _UNPACKED, link.close))
        incoming = destination.accept(link, message, stack)
        made = [name for is_copied, name, _ in volumes if is_copied]
        arriving = _PodmanArriving(link, incoming, offered, name, words, importer, stack, made)
        if token := message.text("pod", ""):
            arriving.come_into_pod(token)
        return arriving.run()


@dataclass(slots=True)
class Waiting:
    """An engine's restore, as far as our engine knows of it."""

    engine: Link
    root: str
    sources: dict[str, str] = field(default_factory=dict)


class Arriving:
    """One in progress, whatever the engine is."""

    def __init__(
        self,
        link: Link,
        incoming: Link | data.Receiver,
        offered: Offer,
        name: str,
        words: list[tuple[str, str]],
        importer: Importer,
        stack: ExitStack,
    ) -> None:
        self._link, self._incoming, self._offer, self._name = link, incoming, offered, name
        self._words, self._importer, self._stack = words, importer, stack
        self._token = secrets.token_hex(16)
        self._has_documents = False
        self._images: SpooledStore | None = None
        self._n_rounds = 0
        #: Those that our engine has not been told of, and the pid of the root in them.
        self._rounds: list[tuple[SpooledStore, int]] = []
        self._is_last = False
        self._table = ""
        self._waiting: Waiting | None = None
        self._copies: dict[str, Copy] = {}

    def run(self) -> Received | None:
        """Do what is said, until it runs here, or does not come after all."""
        steps = {
            DOCUMENTS: self._documents, protocol.IMAGES: self._take_images, BEGIN: self._begin, FILES: self._files,
            FILED: self._filed,
        }  # fmt: skip
        while True:
            message = self._link.expect(*steps, REBUILD, protocol.CANCEL)
            if message.name == protocol.CANCEL:
                return None
            if message.name == REBUILD:
                return self._rebuild()
            steps[message.name](message)

    # -- what engines differ in ------------------------------------------------------------------------------

    def _documents(self, message: Message) -> None:
        """What is told of it becomes what its engine restores it from."""
        raise NotImplementedError

    def _have_it_made(self) -> Waiting:
        """Its engine does its part, and ours waits."""
        raise NotImplementedError

    def _place_of(self, part: str) -> Path:
        """Where files of *part* go; MigrationError where there is no place for them."""
        raise NotImplementedError

    def _given_up(self) -> None:
        """The source has done so; an error says that it cannot be let go all the same."""

    # -- what comes before it is stopped ---------------------------------------------------------------------

    def _take_images(self, message: Message) -> None:
        self._n_rounds += 1
        if self._n_rounds > MAX_PARENTS:
            raise MigrationError("the source does not come to an end")
        name = f"round {self._n_rounds}"
        self._is_last = message.flag("last")
        spool = destination.spool(self._offer, self._importer.place, self._images if self._is_last else None)
        self._images = SpooledStore(self._incoming, name, spool, parent=self._images)
        self._stack.enter_context(self._images)
        if self._is_last:
            return
        self._rounds.append((self._images, message.number("root", 1, 1 << 22)))
        self._lay_out()
        self._link.send(protocol.TAKEN)

    def _lay_out(self) -> None:
        """Our engine, when it is there, puts memory where its restore takes it from."""
        while self._rounds and self._waiting is not None:
            images, root = self._rounds.pop(0)
            with self._told_why():
                meeting.give_images(self._waiting.engine, images, root=root)

    @contextmanager
    def _told_why(self) -> Iterator[None]:
        """If our engine goes, Podman says why."""
        try:
            yield
        except LinkLostError:
            self._importer.result(_SAYS_WITHIN_S)
            raise

    def _begin(self, message: Message) -> None:
        if not self._has_documents or self._waiting is not None:
            message.refuse("begin")
        self._waiting = self._have_it_made()
        self._lay_out()
        self._link.send(WAITS)

    def _meet(self, place: meeting.Meeting) -> tuple[Waiting, Message]:
        """Our engine, which comes to *place*."""
        engine = place.wait(WAITS_WITHIN_S, self._importer.check)
        self._stack.callback(engine.close)
        told = engine.expect(meeting.RESTORE)
        external = tuple(str(each) for each in told.entries("external", 4096))
        return Waiting(engine, told.text("root"), sources_by_key(external)), told

    def _once(self, message: Message) -> list[str]:
        """Documents come once; the descriptors in them."""
        if self._has_documents:
            message.refuse("documents")
        self._has_documents = True
        return [str(each) for each in message.entries("descriptors", 3)]

    def _contents(self, descriptors: list[str]) -> dict[str, bytes]:
        """Files of a checkpoint that is only a word: by them ours knows which migration it is to ask."""
        store = MemStore()
        store_one(store, "INVENTORY", m.inventory_entry(img_version=1, fdinfo_per_id=True))
        inventory = kinds.INVENTORY.file_name()
        return {
            "descriptors.json": json.dumps(descriptors).encode(), inventory: bytes(store.images[inventory]),
            meeting.MARK: self._token.encode(),
        }  # fmt: skip

    def _files(self, message: Message) -> None:
        part = message.text("part")
        if part not in self._copies:
            self._copies[part] = self._stack.enter_context(Copy(self._place_of(part)))
        self._copies[part].take(self._incoming)

    def _filed(self, _: Message) -> None:
        """What has been said before has been done."""
        self._link.send(protocol.TAKEN)

    # -- what comes when it is -------------------------------------------------------------------------------

    def _rebuild(self) -> Received:
        waiting, images = self._waiting, self._images
        if waiting is None or images is None or not self._is_last:
            raise MigrationError("the source does not say what is to be rebuilt")
        with self._told_why():
            meeting.give_images(waiting.engine, images)
            waiting.engine.expect(meeting.READY, timeout_s=destination.FILLED_WITHIN_S)
        self._link.send(protocol.READY)
        self._link.expect(protocol.GO, timeout_s=protocol.GO_WITHIN_S)
        began = time.monotonic()
        self._given_up()
        waiting.engine.send(meeting.GO, table=self._table)
        pid = waiting.engine.expect(meeting.DONE, timeout_s=_RUNS_WITHIN_S).number("pid")
        us = int((time.monotonic() - began) * 1e6)
        try:
            self._link.send(protocol.RUNS, pid=pid, name=self._name, us=us)
        except MigrationError as error:
            log.warn(f"{self._name} runs here; that cannot be told any more: {error}")
        try:
            self._importer.result(_RUNS_WITHIN_S)
        except TorporError as error:
            log.error(f"{self._name} runs here, but: {error.describe()}")
        return Received(self._name, pid)


class _PodmanArriving(Arriving):
    """Of a container of Podman."""

    def __init__(
        self,
        link: Link,
        incoming: Link | data.Receiver,
        offered: Offer,
        name: str,
        words: list[tuple[str, str]],
        importer: Importer,
        stack: ExitStack,
        volumes: list[str],
    ) -> None:
        super().__init__(link, incoming, offered, name, words, importer, stack)
        self._volumes = volumes
        self._archive = importer.place / "container.tar"
        self._pod: Membership | None = None

    def come_into_pod(self, token: str) -> None:
        """It is of the pod that the source knows by *token*."""
        from torpor.containers import arriving_pod

        self._pod = arriving_pod.join(token)
        self._stack.callback(self._pod.link.close)
        self._words.append(("pod", self._pod.id))

    def _given_up(self) -> None:
        if self._pod is None or not (why := self._pod.wait_for_others()):
            return
        self._link.send(NONE_RUNS, text=why)
        raise LinkLostError(why)  # all that is to be said has been

    def _documents(self, message: Message) -> None:
        """Make of them the archive that Podman restores."""
        descriptors = self._once(message)
        contents = {name: message.text(name, limit=_MAX_DOCUMENT).encode(errors="surrogateescape") for name in NAMES}
        contents |= {f"checkpoint/{name}": content for name, content in self._contents(descriptors).items()}
        said = self._importer.place / LOG
        with open(said, "xb", buffering=0) as file, Spool(said.parent) as room:
            while block := self._incoming.read(_CHUNK):
                room.check_room("what it has said", len(block))
                file.write(block)
        with tarfile.open(self._archive, "x") as archive:
            for name, content in contents.items():
                about = tarfile.TarInfo(name)
                about.size, about.mode = len(content), 0o600
                archive.addfile(about, io.BytesIO(content))
            if said.stat().st_size:
                archive.add(said, LOG)

    def _have_it_made(self) -> Waiting:
        renamed = self._name if self._name != self._offer.name else None
        if self._pod is not None:
            with meeting.Meeting(meeting.of_restore(self._token)) as place:
                self._importer.begin(self._archive, self._offer.name, renamed, self._words, self._volumes)
                waiting, _ = self._meet(place)
            if shm := waiting.sources.get(SHM_POINT, ""):
                self._pod.share_shm(shm)
            self._table = self._pod.table
            return waiting
        with (
            meeting.Meeting(meeting.of_restore(self._token)) as place,
            HeldNetwork(network_programs(), self._importer.pid, self._token) as held,
        ):
            self._importer.begin(self._archive, self._offer.name, renamed, self._words, self._volumes)
            waiting, told = self._meet(place)
            network, pid = told.number("network", -1), told.number("pid", 1)
            if network >= 0:
                fd = os.open(f"/proc/{pid}/fd/{network}", os.O_RDONLY | os.O_CLOEXEC)
                held.settle(OwnedFd(fd))
                self._table = held.table
        return waiting

    def _place_of(self, part: str) -> Path:
        waiting = self._waiting
        if waiting is None:
            raise MigrationError("the source sends files before there is a place for them")
        if part == ROOT:
            return Path(waiting.root)
        place = waiting.sources.get(SHM_POINT if part == SHM else part.removeprefix(VOLUME), "")
        is_ours = place.endswith(_SHM_END) if part == SHM else part.startswith(VOLUME) and _is_volume(place)
        if not is_ours:
            raise MigrationError(f"there is no place here for {part}")
        return Path(place)


def network_programs() -> list[str]:
    """Those here that set up networks for Podman."""
    found = [path for path in _NETAVARK if os.path.exists(path)]
    for place in _CNI:
        if os.path.isdir(place):
            found += [entry.path for entry in os.scandir(place) if entry.is_file()]
    return found


def _is_volume(place: str) -> bool:
    """Whether it is one of Podman's."""
    known = run("podman", "volume", "ls", "--format", "{{.Mountpoint}}").splitlines()
    return place in known


def _volumes_of(message: Message) -> Iterator[tuple[bool, str, str]]:
    """Whether each comes along, its name ("" for a directory of the host's), and where it is on the source."""
    for entry in message.entries("volumes", _MAX_VOLUMES):
        match entry:
            case [bool(is_copied), str(name), str(source)] if name != "" or not is_copied:
                if name and not _VOLUME_NAME.fullmatch(name):
                    message.refuse("volumes")
                yield is_copied, name, source
            case _:
                message.refuse("volumes")


def _of_volumes(volumes: list[tuple[bool, str, str]]) -> Iterator[TorporError]:
    known = set(run("podman", "volume", "ls", "--format", "{{.Name}}").split()) if volumes else set()
    for is_copied, name, source in volumes:
        if not name and not os.path.isdir(source):
            yield EngineError(f"there is no directory {source} here", hint="mount it here at the same place")
        elif name and is_copied and name in known:
            yield EngineError(
                f"there is a volume called {name} here",
                hint="--volumes shared, if it is the same one; podman volume rm",
            )
        elif name and not is_copied and name not in known:
            yield EngineError(f"there is no volume called {name} here", hint="--volumes copy, or podman volume create")


def _problems(message: Message, name: str) -> list[TorporError]:
    """What stands in the way of this container here."""
    if not command_of("podman"):
        return [EngineError("there is no podman here")]
    found: list[TorporError] = []
    image, ident = message.text("image", ""), message.text("image_id", "")
    if PODMAN.exists(name):
        found.append(
            EngineError(f"there is a container called {name} here", hint="--name calls the one that comes otherwise")
        )
    if image and not image.startswith("-"):
        hint = f"podman save {image} | ssh HOST podman load"
        if not PODMAN.has_image(image):
            found.append(EngineError(f"the image {image} is not here", hint=hint))
        elif ident and run("podman", "image", "inspect", "--format", "{{.Id}}", image).strip() != ident:
            found.append(EngineError(f"{image} is another image here", hint=hint))
    return [*found, *network_problems(message.entries("networks", MAX_NETWORKS))]


def network_problems(networks: list[object]) -> Iterator[TorporError]:
    """Those of *networks* that Podman here does not have."""
    known = set(run("podman", "network", "ls", "--format", "{{.Name}}").split())
    for network in networks:
        if str(network) not in known:
            yield EngineError(f"there is no network called {network} here", hint="podman network create")
