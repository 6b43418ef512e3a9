"""A container of Podman moves to another host while it runs (:mod:`torpor.containers.moving`), or as one of a pod."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from torpor.base.errors import RefusedError, TorporError, UsageError
from torpor.base.records import dataclass
from torpor.containers import arriving, waking
from torpor.containers.arriving import DOCUMENTS, LOG, NAMES, ROOT, SHM, SHM_POINT, VOLUME
from torpor.containers.asking import Asking
from torpor.containers.commands import run
from torpor.containers.layer import Directory
from torpor.containers.model import Container, Words
from torpor.containers.moving import Agreed, Move
from torpor.containers.names import PODMAN
from torpor.containers.podman import SHM_COPY
from torpor.containers.together import AGREED, FILED, READY, Together
from torpor.kernel import interrupts
from torpor.migrate import homes, keeping, offer, protocol, source
from torpor.migrate.link import LinkLostError, Message
from torpor.migrate.offer import Offer
from torpor.migrate.source import Moved, Wishes
from torpor.migrate.way import Destination, Remote

COPY, SHARED = "copy", "shared"
_CHUNK, _MAX_DOCUMENT = 1 << 20, 3 << 20
#: The directory of a move's rounds, in the container's own; the checkpoint of a container with --rm, which Podman
#: forgets.
_ROUNDS, _ARCHIVE = "torpor-rounds", "container.tar"
#: What Podman leaves of a checkpoint in a container's directory.
_LEFT = ("config.dump", "spec.dump", "network.status", "stats-dump", SHM_COPY, "dump.log")


def migrate(
    container: Container,
    where: Destination,
    wishes: Wishes,
    words: Words,
    volumes: str = "",
    *,
    together: Together | None = None,
) -> Moved | None:
    """See :func:`torpor.containers.moving.migrate`; *together*: it is one of those that move as one."""
    began = time.monotonic()
    told = json.loads(run("podman", "container", "inspect", container.id))[0]
    _sweep(Path(str(told["StaticDir"])))
    mounts = mounts_of(container, told, volumes, is_alone=together is None)
    if not any(word == "tcp-established" for word, _ in words) and wishes.name in ("", container.name):
        words = [*words, ("tcp-established", "")]  # Podman has none of a container that it calls otherwise
    if wishes.persist and (told.get("HostConfig") or {}).get("AutoRemove"):
        raise UsageError(f"--persist: podman forgets {container.label} as it ends (--rm)", hint="--keep-source")
    networks = list((told.get("NetworkSettings") or {}).get("Networks") or {}) if together is None else []
    made = offer.make(container.pid, container.name, {}, offer.CONTAINER)
    if wishes.persist:
        keeping.check(wishes.persist, made.memory_bytes)
    with Remote(where, source.remote_words(wishes), wishes.rsh) as remote, ExitStack() as stack:
        try:
            name, way = source.agree(
                remote.link, made, wishes, stack, image=str(told.get("ImageName", "")),
                image_id=str(told.get("Image", "")), networks=networks,
                words=[word for word, _ in words if word in arriving.WORDS],
                volumes=[[each.is_copied, each.name, each.source] for each in mounts],
                pod=together.token if together is not None else "",
            )  # fmt: skip
            if wishes.dry_run:
                remote.link.send(protocol.CANCEL)
                return None
            agreed = Agreed(remote.link, way, container, str(where), wishes, words, stack)
            move = _PodmanMove(agreed, told, together)
            move.reach(AGREED)
            return move.run_with(mounts, name, made, began)
        except LinkLostError as error:
            remote.explain(error)
            raise


def _sweep(static: Path) -> None:
    """Remove what killed moves have left of containers that run: *static* is the directory of any of them."""
    left = [place for place in static.parent.parent.glob(f"*/{static.name}/{_ROUNDS}") if homes.is_left(place)]
    running = {container.id for container in PODMAN.containers() if container.runs} if left else set()
    for place in left:
        if place.parent.parent.name in running:
            shutil.rmtree(place, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume, or (without a *name*) a directory of the host, at *point* of the container."""

    name: str
    source: str
    point: str
    is_copied: bool


def mounts_of(container: Container, told: dict[str, Any], volumes: str, *, is_alone: bool) -> list[Mount]:
    """The container's; RefusedError for what cannot be moved, which others with it (not *is_alone*) may change."""
    problems, _ = PODMAN.foresee(container)
    if problems:
        raise problems[0]
    if is_alone and told.get("Pod"):
        raise RefusedError(
            f"{container.label} is in a pod, whose containers share namespaces and are not moved by themselves",
            hint="torpor migrate pod:NAME HOST moves all of it; `podman pod ps` says how it is called",
        )
    network = str((told.get("HostConfig") or {}).get("NetworkMode", ""))
    if is_alone and network.startswith(("container:", "ns:")):
        raise RefusedError(f"{container.label} is in the network of another one ({network}), which stays here")
    found = []
    for mount in told.get("Mounts") or ():
        name, source, point = (str(mount.get(key) or "") for key in ("Name", "Source", "Destination"))
        what = f"the volume {name}" if name else f"{source} of this host"
        if not volumes:
            raise RefusedError(
                f"{container.label} has {what} on {point}",
                hint="--volumes copy has volumes copied; --volumes shared, where the other host has the same ones",
            )
        if volumes == COPY and not name:
            raise RefusedError(
                f"{container.label} has {what} on {point}, and a directory of the host's is not copied",
                hint="--volumes shared, where the other host has the same one",
            )
        found.append(Mount(name, source, point, volumes == COPY))
    return found


class _PodmanMove(Move):
    """Of a container of Podman."""

    engine = PODMAN.name

    def __init__(self, agreed: Agreed, told: dict[str, Any], together: Together | None) -> None:
        self._told, self._together = told, together
        super().__init__(agreed)
        self._there = set(os.listdir(self._static)) - {_ROUNDS}

    def run_with(self, mounts: list[Mount], name: str, made: Offer, began: float) -> Moved:
        """Do it, and the volumes among *mounts* that are copied come along."""
        upper = str((self._told.get("GraphDriver") or {}).get("Data", {}).get("UpperDir", ""))
        if not upper:
            raise RefusedError(f"{self._container.label} has no overlay as its file system")
        self._directories = {ROOT: Directory(Path(upper), whiteouts=True)}
        if _has_own_shm(self._told) or (self._together is not None and self._together.sharers):
            self._directories[SHM] = Directory(Path(f"/proc/{self._container.pid}/root{SHM_POINT}"))
        for mount in mounts:
            if mount.is_copied:
                self._directories[f"{VOLUME}{mount.point}"] = Directory(Path(mount.source))
        return self.run(name, made, began)

    def _look_at_mappings(self) -> None:
        super()._look_at_mappings()
        for pid in self._together.sharers if self._together is not None else ():
            self._mapped.look(pid, f"{SHM_POINT}/")

    @property
    def _static(self) -> Path:
        return Path(str(self._told["StaticDir"]))

    @property
    def _is_removed(self) -> bool:
        """Whether Podman forgets it as soon as it has ended."""
        return bool((self._told.get("HostConfig") or {}).get("AutoRemove"))

    @property
    def _kept(self) -> str:
        return "podman's storage"

    @property
    def _images_here(self) -> Path:
        return self._static / "checkpoint"

    @property
    def _by_hand(self) -> str:
        what = str(self._home / _ARCHIVE) if self._is_removed else self._container.label
        return " ".join([what, *(f"--{word}" for word, _ in self._words if word in arriving.WORDS)])

    def _make_home(self) -> Path:
        """Whoever removes its checkpoint removes the rounds."""
        shutil.rmtree(self._rounds_home, ignore_errors=True)  # of a move that was killed, and it runs
        rounds = self._stack.enter_context(homes.held(self._rounds_home))
        return super()._make_home() if self._is_removed else rounds

    @property
    def _rounds_home(self) -> Path:
        return self._static / _ROUNDS

    def _before(self, images: Path, last: str) -> str:
        return f"{_ROUNDS}/{last}" if self._is_removed else super()._before(images, last)

    def _place_rounds(self, images: Path) -> None:
        if self._is_removed:
            # What Podman packs, and unpacks again: a link that leads out of that it does not follow.
            self._rounds_home.rename(images / _ROUNDS)

    def _tidy(self) -> None:
        super()._tidy()
        for place in (self._rounds_home, self._images_here / _ROUNDS):
            shutil.rmtree(place, ignore_errors=True)
        with suppress(TorporError, OSError):
            for name in (*_LEFT, "checkpoint", "pre-checkpoint"):
                place = self._static / name
                if name in self._there:
                    continue
                if place.is_dir():
                    shutil.rmtree(place, ignore_errors=True)
                else:
                    place.unlink(missing_ok=True)

    def _look(self) -> Message:
        """How it is configured goes over, as Podman tells it; what its engine is told at a pre-checkpoint."""
        archive = self._home / "documents.tar"
        words = [f"--{word}" for word, _ in self._words if word in arriving.WORDS]
        line = [*words, "--pre-checkpoint", "--ignore-rootfs", "--ignore-volumes", "--compress=none"]
        line.append(f"--export={archive}")
        command = lambda: run("podman", "container", "checkpoint", *line, self._container.id)  # noqa: E731
        with Asking(command, self.engine, self._meeting) as podman:
            order = podman.order()
        documents = {}
        with tarfile.open(archive) as found:
            for name in NAMES:
                member = found.extractfile(name)
                documents[name] = member.read(_MAX_DOCUMENT).decode() if member is not None else ""
            self._link.send(DOCUMENTS, descriptors=self._descriptors(), **documents)
            with suppress(KeyError):
                if (said := found.extractfile(LOG)) is not None:
                    while block := said.read(_CHUNK):
                        self._way.write(block)
        self._way.finish()
        archive.unlink()
        return order

    def _descriptors(self) -> list[str]:
        """What standard input, output and error were when it was started."""
        for root in ("/run/runc", "/run/crun"):
            with suppress(OSError, ValueError, KeyError):
                state = json.loads(Path(root, self._container.id, "state.json").read_text())
                return [str(each) for each in state["external_descriptors"]][:3]
        return [os.readlink(f"/proc/{self._container.pid}/fd/{number}") for number in range(3)]

    def _checkpoint(self) -> None:
        words = self._words
        if self._is_removed:
            words = [*words, ("ignore-volumes", ""), ("compress", "none")]
        PODMAN.checkpoint(self._container, self._home / _ARCHIVE if self._is_removed else None, words)

    def _forget(self) -> None:
        if PODMAN.exists(self._container.id):
            PODMAN.remove(self._container)

    def reach(self, stage: str) -> None:
        if self._together is None:
            return
        if stage == FILED:
            # One of them brings what all have: none looks for it there before it is there.
            self._link.send(arriving.FILED)
            self._link.expect(protocol.TAKEN, timeout_s=arriving.FILED_WITHIN_S)
        if stage == READY:
            # From here on others may be given up: whether it is, is not for a signal to say.
            self._decided.enter_context(interrupts.held())
        self._together.reach(stage)

    def _is_to_wake(self, why: str) -> bool:
        return self._together.is_to_wake(why) if self._together is not None else super()._is_to_wake(why)

    def _wake(self) -> None:
        options = [word for word in self._words if word[0] in arriving.WORDS]
        if self._is_removed:
            PODMAN.restore_archive(self._home / _ARCHIVE, self._container.name, None, options)
        else:
            waking.wake(self._container, options)


def _has_own_shm(told: dict[str, Any]) -> bool:
    mode = str((told.get("HostConfig") or {}).get("IpcMode", ""))
    return mode in ("", "private", "shareable")
