"""A process that has Podman or runc make a container, and takes away what is left where it cannot, whatever becomes of
us.

It is forked before there are threads, and waits to be told of what; when we end before that, so does it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from torpor.base import log
from torpor.base.errors import EngineError, TorporError
from torpor.base.fds import Closing
from torpor.containers import note
from torpor.containers.commands import run
from torpor.containers.model import Restored
from torpor.containers.names import PODMAN
from torpor.containers.oci import RUNC
from torpor.engine import scratch
from torpor.kernel import errand, netdevice
from torpor.kernel.namespaces import CLONE_NEWNET, inside
from torpor.migrate import held_network

_KEEP = b"keep\n"
#: How often, and how far apart, it is tried to remove a pod that something else is removed from.
_TRIES, _PAUSE_S = 20, 0.5


@dataclass(frozen=True, slots=True)
class MadePod:
    """A pod with its first container, whose *pid* and directory of /dev/shm (*shm*) these are."""

    id: str
    pid: int
    shm: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A container of runc: its *name*, the *images* that it is restored from, and runc's options.

    *network*: the namespace that it is put into, where *links* are up from then on; until it is let go, that is locked
    by *table*.
    """

    place: str
    name: str
    images: str
    words: list[tuple[str, str]]
    network: str
    links: list[str]
    table: str


class Importer(Closing):
    """Works in a directory of its own in *room*, which is ``place``.  *forget*: closes what is not its business."""

    def __init__(self, room: Path, forget: Callable[[], None]) -> None:
        orders, self._tell = os.pipe()
        self._hear, answers = os.pipe()
        with errand.deaf() as mask:
            self.pid = os.fork()
            if not self.pid:
                try:
                    os.close(self._tell)
                    os.close(self._hear)
                    forget()
                    _alone()
                    errand.hear(mask)
                    _serve(orders, answers, room)
                except BaseException:
                    log.error(traceback.format_exc())
                finally:
                    os._exit(0)
        os.close(orders)
        os.close(answers)
        self._answers = open(self._hear, "rb")  # noqa: SIM115
        self._ended: dict[str, object] | None = None
        self.place = Path(str(self._answer(60.0).get("place", "")))
        self._has_begun = False

    def begin(
        self, archive: Path, own_name: str, name: str | None, words: list[tuple[str, str]], volumes: list[str]
    ) -> None:
        """Have Podman make *volumes* and a container of *archive*: see ``Podman.restore_archive``."""
        self._order(archive=str(archive), own_name=own_name, name=name, words=words, volumes=volumes)

    def begin_bundle(self, bundle: Bundle) -> None:
        """Have runc make a container."""
        self._order(bundle=asdict(bundle))

    def make_pod(self, line: list[str], timeout_s: float) -> MadePod:
        """Have Podman make a pod, and start it; until it is to be kept (``keep_pod``), it goes when we do.

        EngineError.
        """
        self._order(pod=line)
        answer = self._answer(timeout_s)
        if "error" in answer:
            raise EngineError(str(answer["error"]))
        return MadePod(str(answer["id"]), int(str(answer["pid"])), str(answer["shm"]))

    def keep_pod(self) -> None:
        """From now on the pod that has been made stays.  EngineError where it does not any more."""
        try:
            os.write(self._tell, _KEEP)
        except OSError as error:
            raise EngineError(f"the pod is not there any more: {error.strerror}") from None

    def undo_pod(self, timeout_s: float) -> None:
        """It goes, if it is there, and what was on its way into it; so long is that waited for."""
        os.close(self._tell)
        self._tell = -1
        deadline = time.monotonic() + timeout_s
        while select.select((self._answers,), (), (), max(0.0, deadline - time.monotonic()))[0]:
            if not self._answers.read1():
                break

    def _order(self, **order: object) -> None:
        self._has_begun = True
        os.write(self._tell, json.dumps(order).encode() + b"\n")

    def check(self) -> None:
        """EngineError if Podman has failed; nothing where it is at work, or is done."""
        if self._has_begun and select.select((self._answers,), (), (), 0)[0]:
            self.result(1.0)

    def result(self, timeout_s: float) -> tuple[str, int]:
        """The container's name and pid; EngineError if Podman has failed, or takes longer than that."""
        answer = self._ended = self._ended or self._answer(timeout_s)
        if "error" in answer:
            error = EngineError(str(answer["error"]))
            for note in answer.get("notes", ()):  # type: ignore[attr-defined]
                error.add_note(note)
            raise error
        return str(answer["name"]), int(str(answer["pid"]))

    def _answer(self, timeout_s: float) -> dict[str, object]:
        if not select.select((self._answers,), (), (), timeout_s)[0]:
            raise EngineError(f"the container's engine has not come to an end within {timeout_s:.0f} s")
        line = self._answers.readline()
        if not line:
            raise EngineError("who had the container made has ended")
        found: dict[str, object] = json.loads(line)
        return found

    def close(self) -> None:
        """What has begun comes to its end without us."""
        if self._tell >= 0:
            os.close(self._tell)
            self._tell = -1
        self._answers.close()


def _alone() -> None:
    """Nobody's terminal, and nobody's link."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)


def _serve(orders: int, answers: int, room: Path) -> None:
    with scratch.directory(room) as place:
        os.environ["TMPDIR"] = str(place)  # where Podman unpacks, and leaves it if it is killed
        _say(answers, {"place": str(place)})
        with open(orders, "rb") as stream:
            line = stream.readline()
            if not line:
                return
            order = json.loads(line)
            if "pod" in order:
                _hold_pod([str(word) for word in order["pod"]], answers, stream)
                return
        try:
            made = _of_bundle(Bundle(**order["bundle"])) if "bundle" in order else _of_archive(order)
        except (TorporError, OSError) as error:
            _say(answers, {"error": str(error), "notes": list(getattr(error, "__notes__", ()))})
        else:
            _say(answers, {"name": made.container.name, "pid": made.container.pid})


def _of_archive(order: dict[str, Any]) -> Restored:
    """By Podman."""
    words = [(str(word), str(value)) for word, value in order["words"]]
    volumes: list[str] = []
    try:
        for name in order["volumes"]:
            run("podman", "volume", "create", name)
            volumes.append(name)
        return PODMAN.restore_archive(Path(order["archive"]), order["own_name"], order["name"], words)
    except (TorporError, OSError):
        for name in volumes:
            with suppress(TorporError):
                run("podman", "volume", "rm", name)
        raise


def _hold_pod(line: list[str], answers: int, orders: BinaryIO) -> None:
    """Make a pod, which goes again unless we are told to keep it."""
    ident = ""
    try:
        ident = run(PODMAN.name, *line).split()[-1]
        run(PODMAN.name, "pod", "start", ident)
        infra = json.loads(run(PODMAN.name, "pod", "inspect", ident))["InfraContainerID"]
        told = json.loads(run(PODMAN.name, "container", "inspect", infra))[0]
        shm = Path(str(told.get("StaticDir", "")), "shm")
        _say(answers, {"id": ident, "pid": int(told["State"]["Pid"]), "shm": str(shm) if shm.is_dir() else ""})
        if orders.readline() == _KEEP:
            return
    except (TorporError, OSError, ValueError, LookupError, TypeError) as error:
        _say(answers, {"error": str(error)})
    if ident:
        _remove_pod(ident)


def _remove_pod(ident: str) -> None:
    """Containers that were on their way into it are removed by those who have had them made, at the same time."""
    for _ in range(_TRIES):
        try:
            run(PODMAN.name, "pod", "rm", "--force", "--time=0", ident)
        except TorporError as error:
            if "no such pod" in str(error):
                return
            log.warn(f"the pod {ident[:12]} cannot be removed: {error}")
            time.sleep(_PAUSE_S)
        else:
            return


def _of_bundle(order: Bundle) -> Restored:
    """By runc; the namespace that it is put into is as it was, where that fails."""
    told = note.Note(RUNC.name, order.name, order.name, place=order.place)
    words = [(str(word), str(value)) for word, value in order.words]
    with ExitStack() as undo:
        if order.network:
            _hold(order, undo)
        undo.callback(_remove, order.name)
        made = RUNC.restore_directory(Path(order.images), told, None, words)
        undo.pop_all()
    return made


def _hold(order: Bundle, undo: ExitStack) -> None:
    network = os.open(order.network, os.O_RDONLY | os.O_CLOEXEC)
    undo.callback(held_network.let_go, network, order.table, is_told=False)
    held_network.hold(network, order.table)
    down = set(order.links) - set(inside(network, CLONE_NEWNET, netdevice.names_up))
    undo.callback(inside, network, CLONE_NEWNET, lambda: netdevice.set_up(down, up=False))
    inside(network, CLONE_NEWNET, lambda: netdevice.set_up(down))


def _remove(name: str) -> None:
    """What runc has left of a container that it could not restore."""
    with suppress(TorporError, OSError, ValueError):
        for container in RUNC.find(name):
            RUNC.remove(container)


def _say(fd: int, told: dict[str, object]) -> None:
    with suppress(BrokenPipeError):
        os.write(fd, json.dumps(told).encode() + b"\n")
