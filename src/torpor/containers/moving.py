"""A container of Podman moves to another host while it runs; both Podmans, as they are, own what they have.

    documents       by a pre-checkpoint of Podman's, which tells how it is configured, and copies nothing
    rounds          of its memory
    begin           Podman restores it on the other host, until our engine waits there for what is in it
    files           what it has written to its file system, and once more its memory
    the last dump   Podman checkpoints it here: its runtime's ``criu`` has us do that (:mod:`torpor.migrate.meeting`)

So what both Podmans do besides is no part of the time for which it is stopped.  Before "go" any failure lets it run on
here; after it the container lies in Podman's storage here as a checkpoint until the destination says that it runs.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from torpor.base import log
from torpor.base.errors import MigrationError, RefusedError, TorporError, UnknownEndError, UsageError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.base.records import dataclass, replace
from torpor.containers import arriving
from torpor.containers.arriving import BEGIN, DOCUMENTS, FILES, LOG, NAMES, REBUILD, ROOT, SHM, VOLUME, WAITS
from torpor.containers.asking import Asking
from torpor.containers.commands import run
from torpor.containers.layer import Directory
from torpor.containers.model import Container, Words
from torpor.containers.names import PODMAN
from torpor.containers.oci import RUNC
from torpor.containers.together import AGREED, ASKED, FAILED, LOST, NONE, READY, STOPPED, WAITING, Together
from torpor.engine.dump import run as engine
from torpor.engine.options import DumpOptions, policies_of
from torpor.engine.stats import DumpStats
from torpor.images import kinds
from torpor.images.store import ImageStore, load_one
from torpor.images.stores.opening import open_store
from torpor.images.stores.stream import TarStore
from torpor.kernel import interrupts
from torpor.kernel.procfs.maps import PROT_WRITE, read_maps
from torpor.kernel.procfs.status import read_status
from torpor.kernel.procfs.task import read_tree
from torpor.kernel.userfaultfd import can_track
from torpor.migrate import held_network, homes, keeping, meeting, offer, protocol, source
from torpor.migrate.link import FailedThereError, Link, LinkLostError, Message, encode
from torpor.migrate.metered import Metered
from torpor.migrate.offer import Offer
from torpor.migrate.rounds import Rounds
from torpor.migrate.source import Moved, Wishes
from torpor.migrate.way import Destination, Remote
from torpor.objects.cgroup.model import CgroupPolicy
from torpor.objects.files.socket import net_lock
from torpor.objects.memory import tracking

COPY, SHARED = "copy", "shared"
_CHUNK, _MAX_DOCUMENT = 1 << 20, 3 << 20
_RUNS_WITHIN_S = 60.0
#: The directory of a move's rounds, in the container's own; in it the checkpoint of a container with --rm, which Podman
#: forgets.
_ROUNDS, _ARCHIVE = "torpor-rounds", "container.tar"
#: What Podman leaves of a checkpoint in a container's directory.
_SHM_COPY = "devshm-checkpoint.tar"
_LEFT = ("config.dump", "spec.dump", "network.status", "stats-dump", _SHM_COPY, "dump.log")


def migrate(
    container: Container,
    where: Destination,
    wishes: Wishes,
    words: Words,
    volumes: str = "",
    bundle: str = "",
    *,
    together: Together | None = None,
) -> Moved | None:
    """Move *container* to the host *where*, with options of its engine's; None for a dry run.

    *volumes*: COPY, SHARED (the other host has them already), or "" where there are none.  *bundle*: where that of a
    container of runc is on the other host, "" for where it is here.  *together*: it is one of those that move as one.

    MigrationError, EngineError: it runs on here.  UnknownEndError: it does not run here, and perhaps there.
    """
    source.check(wishes, container.label)
    homes.sweep()
    if container.engine == RUNC.name:
        from torpor.containers import moving_bundle

        return moving_bundle.migrate(container, where, wishes, words, bundle)
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
            move = _PodmanMove(remote.link, way, container, str(where), wishes, words, stack, told, together)
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


class Move:
    """One in progress, whatever the engine is."""

    engine = ""

    def __init__(
        self,
        link: Link,
        way: Metered,
        container: Container,
        host: str,
        wishes: Wishes,
        words: Words,
        stack: ExitStack,
    ) -> None:
        self._link, self._way, self._container = link, way, container
        self._host, self._wishes, self._words, self._stack = host, wishes, words, stack
        self._rounds = Rounds(wishes.aim, wishes.tell, self._taken)
        self._root = read_status(Pid(container.pid)).ns_pids[-1]
        self._home = self._make_home()
        self._meeting = stack.enter_context(meeting.Meeting(meeting.of_dump(container.pid)))
        self._directories: dict[str, Directory] = {}
        self._go_ns = 0
        #: What is in here lasts until the tree has been given up, or goes on.
        self._decided = ExitStack()

    # -- what engines differ in ------------------------------------------------------------------------------

    def _make_home(self) -> Path:
        """Where the rounds are, on which its checkpoint here depends."""
        home = homes.home() / f"{self._container.id[:12]}-{os.urandom(4).hex()}"
        return self._stack.enter_context(homes.held(home))

    def _tidy(self) -> None:
        """What is left of us, where the container runs on."""
        shutil.rmtree(self._home, ignore_errors=True)

    def _look(self) -> Message:
        """How it is configured goes over; what its engine is told at a pre-checkpoint."""
        raise NotImplementedError

    def _checkpoint(self) -> None:
        """Have its engine checkpoint it."""
        raise NotImplementedError

    def _forget(self) -> None:
        """It runs there: nothing of it is to stay here."""
        raise NotImplementedError

    def _wake(self) -> None:
        """It goes on where it was, from its checkpoint; the errors of that."""
        raise NotImplementedError

    def reach(self, stage: str) -> None:
        """It has come so far: whoever moves as one with others waits for them.  MigrationError where one does not."""

    def _is_to_wake(self, why: str) -> bool:
        """It does not run there, or (LOST) nobody says so any more: whether it is to run on here."""
        return why != LOST

    @property
    def _kept(self) -> str:
        """Where its images are here afterwards."""
        return str(self._home)

    @property
    def _images_here(self) -> Path:
        """The last ones."""
        raise NotImplementedError

    @property
    def _by_hand(self) -> str:
        """What ``torpor restore`` would be told."""
        return self._container.label

    # -- all of it -------------------------------------------------------------------------------------------

    def run(self, name: str, made: Offer, began: float) -> Moved:
        """Move the container, which is to be called *name* there; *began* is when that was, by time.monotonic().

        TorporError or OSError: until "go" it runs on here whatever fails, which a note on the error says.
        """
        try:
            order = self._look()
            tracker = self._stack.enter_context(tracking.Tracker()) if can_track() else None
            pre_dump = self._pre_dumper(order)
            if tracker is not None and self._wishes.aim.most:
                self._rounds.run(self._container.pid, self._home, tracker, self._images, {}, pre_dump)
            self._link.send(BEGIN)
            self._link.expect(WAITS, timeout_s=arriving.WAITS_WITHIN_S)
            for part in self._directories:
                self._send_files(part)
            self.reach(WAITING)
            stats = self._dump(tracker, pre_dump)
        except BaseException as error:
            self._tidy()
            if isinstance(error, LinkLostError):
                error = self._link.why(error)
            error.add_note(f"{self._container.label} runs on here")
            raise error from None
        runs = self._hear_end()
        kept = self._kept if self._wishes.keep_source else ""
        is_to_stay = self._wishes.keep_source
        if self._wishes.persist:
            names = [f"round{made.number}" for made in self._rounds.done]
            kept = keeping.keep_if_possible(self._wishes.persist, self._images_here, self._home, names)
            is_to_stay = is_to_stay or not kept
        if not is_to_stay:
            self._forget()
            shutil.rmtree(self._home, ignore_errors=True)
        downtime_s = (self._go_ns - stats.watch.began_ns.get("freezing", self._go_ns)) / 1e9 + runs.number("us") / 1e6
        return Moved(
            self._host, name, runs.number("pid"), stats.n_processes, made.memory_bytes, self._way.n_sent, downtime_s,
            time.monotonic() - began, tuple(self._rounds.done), kept=kept,
        )  # fmt: skip

    # -- while it runs ---------------------------------------------------------------------------------------

    def _images(self, is_last: bool) -> TarStore:
        self._link.send(protocol.IMAGES, last=is_last, root=self._root)
        return TarStore(self._way, f"the link to {self._host}", self._wishes.compress, spool=str(self._home))

    def _taken(self) -> None:
        self._link.expect(protocol.TAKEN, timeout_s=arriving.WAITS_WITHIN_S)

    def _pre_dumper(self, order: Message) -> Callable[..., DumpStats]:
        told = meeting.told_of(order)

        def pre_dump(
            pid: int, place: Path, *, parent: str, tracker: tracking.Tracker, also: ImageStore, made_by: str
        ) -> DumpStats:
            options = replace(_options(told), made_by=made_by, parent=parent, tracker=tracker, also=also)
            return engine.pre_dump(pid, place, replace(options, owns_directory=True, stats_directory=""))

        return pre_dump

    def _send_files(self, part: str, mapped: frozenset[str] = frozenset()) -> None:
        self._link.send(FILES, part=part)
        point = {ROOT: "", SHM: "/dev/shm"}.get(part, part.removeprefix(VOLUME)).rstrip("/") + "/"
        inside = frozenset(path.removeprefix(point) for path in mapped if path.startswith(point))
        began, before = time.monotonic(), self._way.n_sent
        n_sent = self._directories[part].send(self._way, inside)
        n_bytes, seconds = self._way.n_sent - before, time.monotonic() - began
        log.debug(f"{n_sent} files and directories of {part}: {n_bytes} bytes in {seconds:.2f} s")

    # -- when it is stopped ----------------------------------------------------------------------------------

    def _dump(self, tracker: tracking.Tracker | None, pre_dump: Callable[..., DumpStats]) -> DumpStats:
        """Its engine checkpoints it, and ours, asked by that, does so over the link."""
        stats = None
        with Asking(self._checkpoint, self.engine, self._meeting) as command:
            asking = command.asked()
            try:
                if self._rounds.last and tracker is not None:
                    # Both engines have taken their time since the last round, and since the files were sent: both are
                    # done once more, so that little is left for the time that it is stopped.
                    self._rounds.one_more(self._container.pid, self._home, tracker, self._images, {}, pre_dump)
                for part in self._directories:
                    self._send_files(part)
                self.reach(ASKED)
                stats = self._answer(asking, tracker)
                asking.send(meeting.DONE)
            except BaseException as error:
                if stats is not None:
                    log.warn(f"{self.engine} has not heard that it has been moved: {error}")
                    return stats
                with suppress(TorporError):
                    asking.send("failed", text=str(error))
                raise
            finally:
                asking.close()
                command.has_ended_well = stats is not None
        return stats

    def _answer(self, asking: Link, tracker: tracking.Tracker | None) -> DumpStats:
        order = asking.expect(meeting.DUMP)
        images = order.text("images")
        told = meeting.told_of(order)
        told["network"]["holds_all"] = True
        last = os.path.relpath(self._home / self._rounds.last, images) if self._rounds.last else ""
        with ExitStack() as decided, self._images(True) as also:
            self._decided = decided
            options = replace(
                _options(told), made_by="torpor migrate", notify=meeting.teller(asking), commit=self._commit, also=also,
                last_word=(self._link.writer, encode(protocol.GO)), tracker=tracker, parent=last,
                stats_directory=order.text("stats"),
            )  # fmt: skip
            return engine.dump(self._container.pid, images, options)

    def _commit(self, _: str) -> None:
        """All of its images have gone, and it is stopped: the rest of its files, and whether it can be rebuilt."""
        self.reach(STOPPED)
        mapped = self._mapped()
        for part in self._directories:
            self._send_files(part, mapped)
        self._link.send(REBUILD)
        self._link.expect(protocol.READY, timeout_s=source.READY_WITHIN_S)
        self.reach(READY)
        self._go_ns = time.perf_counter_ns()

    def _mapped(self) -> frozenset[str]:
        """Files that are written to by mappings, which nobody is told of."""
        found = set()
        for pid in read_tree(Pid(self._container.pid)):
            with suppress(OSError):
                found |= {vma.name for vma in read_maps(pid) if vma.shared and vma.is_file and vma.prot & PROT_WRITE}
        return frozenset(found)

    # -- afterwards ------------------------------------------------------------------------------------------

    def _hear_end(self) -> Message:
        """That it runs there.  UnknownEndError where nobody says so; where it says that it does not, it does here."""
        label = self._container.label
        message = None
        try:
            message = self._link.expect(protocol.RUNS, arriving.NONE_RUNS, timeout_s=_RUNS_WITHIN_S)
            if message.name == arriving.NONE_RUNS:
                raise FailedThereError(f"{self._host}: {message.text('text')}")
            return message
        except FailedThereError as error:
            why = NONE if message is not None else FAILED
            if not self._is_to_wake(why):
                raise UnknownEndError(
                    f"{error.describe()}: {label} runs nowhere, and sleeps here, for others that it moved with run "
                    f"on {self._host}",
                    hint=f"torpor restore {self._by_hand}",
                ) from None
            self._restore_here(error)
            raise
        except MigrationError as error:
            if self._is_to_wake(LOST):
                self._restore_here(error)
                raise
            raise UnknownEndError(
                f"{label} does not run here any more, and whether it runs on {self._host} is not known: {error}",
                hint=f"look on {self._host}; if it does not run there: torpor restore {self._by_hand}",
            ) from None

    def _restore_here(self, error: BaseException) -> None:
        """It goes on where it was; *error* is told what came of that."""
        label = self._container.label
        try:
            self._wake()
            error.add_note(f"{label} runs on here")
            shutil.rmtree(self._home, ignore_errors=True)
        except TorporError as failure:
            error.add_note(f"{label} could not be restored here: {failure.describe()}")


class _PodmanMove(Move):
    """Of a container of Podman."""

    engine = PODMAN.name

    def __init__(
        self,
        link: Link,
        way: Metered,
        container: Container,
        host: str,
        wishes: Wishes,
        words: Words,
        stack: ExitStack,
        told: dict[str, Any],
        together: Together | None = None,
    ) -> None:
        self._told, self._together = told, together
        super().__init__(link, way, container, host, wishes, words, stack)
        self._there = set(os.listdir(self._static)) - {_ROUNDS}

    def run_with(self, mounts: list[Mount], name: str, made: Offer, began: float) -> Moved:
        """Do it, and the volumes among *mounts* that are copied come along."""
        upper = str((self._told.get("GraphDriver") or {}).get("Data", {}).get("UpperDir", ""))
        if not upper:
            raise RefusedError(f"{self._container.label} has no overlay as its file system")
        self._directories = {ROOT: Directory(Path(upper), whiteouts=True)}
        if _has_own_shm(self._told) or (self._together is not None and self._together.carries_shm):
            self._directories[SHM] = Directory(Path(f"/proc/{self._container.pid}/root/dev/shm"))
        for mount in mounts:
            if mount.is_copied:
                self._directories[f"{VOLUME}{mount.point}"] = Directory(Path(mount.source))
        return self.run(name, made, began)

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
        if self._is_removed:
            return super()._make_home()
        home = self._static / _ROUNDS
        shutil.rmtree(home, ignore_errors=True)  # of a move that was killed, and it runs
        return self._stack.enter_context(homes.held(home))

    def _tidy(self) -> None:
        super()._tidy()
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
            asking = podman.asked()
            try:
                order = asking.expect(meeting.DUMP)
                asking.send(meeting.DONE)
            finally:
                asking.close()
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
            words = [*words, ("ignore-rootfs", ""), ("ignore-volumes", ""), ("compress", "none")]
        PODMAN.checkpoint(self._container, self._home / _ARCHIVE if self._is_removed else None, words)

    def _forget(self) -> None:
        if PODMAN.exists(self._container.id):
            PODMAN.remove(self._container)

    def reach(self, stage: str) -> None:
        if self._together is None:
            return
        if stage == READY:
            # From here on others may be given up: whether it is, is not for a signal to say.
            self._decided.enter_context(interrupts.held())
        self._together.reach(stage)

    def _is_to_wake(self, why: str) -> bool:
        return self._together.is_to_wake(why) if self._together is not None else super()._is_to_wake(why)

    def _wake(self) -> None:
        options = [word for word in self._words if word[0] in arriving.WORDS]
        if self._together is not None:
            self._wake_in_pod(self._together.infra, options)
        elif self._is_removed:
            PODMAN.restore_archive(self._home / _ARCHIVE, self._container.name, None, options)
        else:
            PODMAN.restore(self._container, options)

    def _dump(self, tracker: tracking.Tracker | None, pre_dump: Callable[..., DumpStats]) -> DumpStats:
        stats = super()._dump(tracker, pre_dump)
        if self._together is not None and self._together.shares_shm:
            # Podman would put a second copy into the pod's /dev/shm, in the place of files that others have mapped by
            # then; what they hold is there all the time.
            (self._static / _SHM_COPY).unlink(missing_ok=True)
        return stats

    def _wake_in_pod(self, infra: str, options: Words) -> None:
        """The network there is the pod's, which has been there all the time and is still locked."""
        with open_store(self._images_here, "r") as images:
            table = net_lock.table_of(load_one(images, kinds.INVENTORY).dump_criu_run_id)
        pid = int(run("podman", "container", "inspect", "--format", "{{.State.Pid}}", infra))
        with OwnedFd(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as network:
            PODMAN.restore(self._container, options)
            held_network.let_go(network.fileno(), table)


def _options(told: dict[str, dict[str, Any]]) -> DumpOptions:
    # A server that accepts nothing for a while is no reason not to move it: what waits for it then is left behind.
    told["network"]["skip_in_flight"] = True
    return DumpOptions(policies=policies_of(told), cgroups=CgroupPolicy(**told["cgroups"]), **told["dump"])


def _has_own_shm(told: dict[str, Any]) -> bool:
    mode = str((told.get("HostConfig") or {}).get("IpcMode", ""))
    return mode in ("", "private", "shareable")
