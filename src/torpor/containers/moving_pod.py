"""A pod of Podman moves to another host as one: either all of its containers run there, or all run on here.

The pod is made there first, with its network held back.  Each container then moves as any other does
(:mod:`torpor.containers.moving_podman`), by a process of its own, and all of them wait for each other
(:mod:`torpor.containers.together`): all are stopped before any asks whether it can be rebuilt, and all can be before
any is given up.  The destination lets none go before it has heard of all that they have been.  So a failure before
that, also between the first and the last that is given up, brings all of them back here.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import signal
import socket
import time
import traceback
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from typing import Any

from torpor.base import log
from torpor.base.errors import MigrationError, RefusedError, TorporError, UnknownEndError, UsageError
from torpor.base.typed import NoReturn
from torpor.containers import arriving, moving_podman, pods
from torpor.containers.commands import run
from torpor.containers.model import Container, Words
from torpor.containers.pods import Pod
from torpor.containers.together import (
    CANCEL,
    ENDED,
    FAILED,
    FILED,
    LEAVE,
    NONE,
    NOT_THERE,
    ON,
    REACHED,
    READY,
    STOPPED,
    WAKE,
    Together,
)  # fmt: skip
from torpor.kernel import errand, interrupts
from torpor.migrate import homes, offer, protocol, source
from torpor.migrate.link import Link, LinkLostError, Message, own_socket
from torpor.migrate.offer import Offer
from torpor.migrate.rounds import Round
from torpor.migrate.source import Moved, Wishes
from torpor.migrate.way import Destination, Remote

_MADE_WITHIN_S, _UNDONE_WITHIN_S = 180.0, 60.0
#: How long the first that is stopped waits for the others to be, the first whose files are there for those of the
#: others, and the first that is rebuilt for the others to be so: half of what the destination waits for.
_WITHIN_S = {STOPPED: 60.0, FILED: 60.0, READY: protocol.GO_WITHIN_S / 2}


def migrate(pod: Pod, where: Destination, wishes: Wishes, words: Words, volumes: str = "") -> Moved | None:
    """Move *pod* to the host *where*; None for a dry run.  The rest is as of a container.

    MigrationError, EngineError: all of it runs on here.  UnknownEndError: not all of it runs here, and perhaps there.
    """
    source.check(wishes, pod.label)
    if wishes.name or wishes.persist or wishes.keep_source:
        raise UsageError("--name, --persist and --keep-source are not for pods")
    homes.sweep()
    began = time.monotonic()
    _check(pod, volumes)
    made = offer.make(pod.infra.pid, pod.name, {}, offer.CONTAINER)
    plain = dataclasses.replace(wishes, via_ssh=True, compress="none")
    with Remote(where, source.remote_words(wishes), wishes.rsh) as remote, ExitStack() as stack:
        try:
            source.agree(remote.link, made, plain, stack, engine=arriving.POD, **pods.fields(pod))
            if wishes.dry_run:
                remote.link.send(protocol.CANCEL)
                for member in pod.members:
                    together = Together(_nowhere(stack), "", pod.infra.id)
                    moving_podman.migrate(member, where, wishes, words, volumes, together=together)
                return None
            remote.link.send(arriving.BEGIN)
            token = remote.link.expect(arriving.WAITS, timeout_s=_MADE_WITHIN_S).text("token")
            try:
                moved = _Moves(pod, where, wishes, words, volumes, remote.link, token).run()
            except BaseException:
                _take_back(remote.link)
                raise
        except LinkLostError as error:
            remote.explain(error)
            raise
    try:
        run("podman", "pod", "rm", "--force", "--time=0", pod.id)
    except TorporError as error:
        log.warn(f"{pod.label} runs on {where}, but what is left of it here cannot be removed: {error}")
    return _sum(pod, made, where, moved, began)


def _take_back(link: Link) -> None:
    """The pod there has been removed when this returns, if it is not to stay and it can be waited for."""
    with suppress(MigrationError):
        link.send(protocol.CANCEL)
        link.expect(protocol.RUNS, timeout_s=_UNDONE_WITHIN_S)


def _nowhere(stack: ExitStack) -> Link:
    """In a dry run nobody waits for others."""
    near, far = socket.socketpair()
    far.close()
    link = own_socket(near, "nobody")
    stack.callback(link.close)
    return link


def _check(pod: Pod, volumes: str) -> None:
    """RefusedError for what cannot be moved."""
    pods.check_shared(pod)
    seen: set[str] = set()
    for member in pod.members:
        told = json.loads(run("podman", "container", "inspect", member.id))[0]
        pods.check_member(pod, member, told)
        for each in moving_podman.mounts_of(member, told, volumes, is_alone=False):
            if each.is_copied and each.name in seen:
                raise RefusedError(
                    f"several containers of {pod.label} have the volume {each.name}, which would be copied by each",
                    hint="--volumes shared, where the other host has the same one",
                )
            seen.add(each.name)


def _sum(pod: Pod, made: Offer, where: Destination, moved: list[Moved], began: float) -> Moved:
    return Moved(
        str(where), pod.name, moved[0].pid, sum(each.n_processes for each in moved),
        made.memory_bytes + sum(each.memory_bytes for each in moved), sum(each.sent_bytes for each in moved),
        max(each.downtime_s for each in moved), time.monotonic() - began,
    )  # fmt: skip


@dataclasses.dataclass(slots=True)
class _Member:
    """A container, and who moves it: how far it has come, and what has become of it."""

    container: Container
    pid: int
    link: Link
    reached: str = ""
    may_go_on: bool = True
    #: Why it is not known to run there, and what is to become of it is waited for.
    not_there: str = ""
    moved: Moved | None = None
    error: str = ""
    hint: str = ""
    is_unknown: bool = False
    has_ended: bool = False


class _Moves:
    """All of them."""

    def __init__(
        self, pod: Pod, where: Destination, wishes: Wishes, words: Words, volumes: str, link: Link, token: str
    ) -> None:
        self._pod, self._where, self._words, self._volumes = pod, where, words, volumes
        self._wishes = dataclasses.replace(wishes, bandwidth=wishes.bandwidth // len(pod.members))
        self._link, self._token = link, token
        self._members: list[_Member] = []
        self._is_given = False
        self._why = ""
        self._waits_until: float | None = None

    def run(self) -> list[Moved]:
        """What came of each, if all run there."""
        with ExitStack() as given:
            try:
                for container in self._pod.members:
                    self._members.append(self._begin(container))
                while any(not each.has_ended for each in self._members):
                    self._hear(given)
            except BaseException as error:
                # Whoever has been given up is; of the others none is, and each says so itself.
                self._cancel(str(error) or "it was broken off")
                raise
            finally:
                self._reap()
        return self._outcome()

    # -- who moves them ------------------------------------------------------------------------------------------------

    def _begin(self, container: Container) -> _Member:
        near, far = socket.socketpair()
        others = [each.link for each in self._members]
        with errand.deaf() as mask:
            pid = os.fork()
            if not pid:
                near.close()
                self._work(container, far, others, mask)
            far.close()
        return _Member(container, pid, own_socket(near, container.label))

    def _work(self, container: Container, end: socket.socket, others: list[Link], mask: Iterable[int]) -> NoReturn:
        """In a process of its own."""
        try:
            # Ctrl-C is for who has all of them moved; SIGTERM comes from that.
            signal.signal(signal.SIGINT, lambda number, frame: None)
            for each in (self._link, *others):
                each.close()
            link = own_socket(end, "the pod's migration")
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            link.send(ENDED, **self._move(container, link))
        except interrupts.Interrupted:
            pass  # what it was to be kept from has come to its end already
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)

    def _move(self, container: Container, link: Link) -> dict[str, Any]:
        members = self._pod.members
        carries_shm = "ipc" in self._pod.shares and container.id == members[0].id
        sharers = [each.pid for each in members] if carries_shm else []
        together = Together(link, self._token, self._pod.infra.id, sharers)
        try:
            moved = moving_podman.migrate(
                container, self._where, self._wishes, self._words, self._volumes, together=together
            )  # fmt: skip
            assert moved is not None
            return {"moved": dataclasses.asdict(moved)}
        except TorporError as error:
            text = "; ".join((str(error), *getattr(error, "__notes__", ())))
            return {"error": text, "hint": error.hint or "", "unknown": isinstance(error, UnknownEndError)}
        except interrupts.Interrupted as stop:
            return {"error": f"ended by signal {stop.number}; {container.label} runs on here"}
        except OSError as error:
            return {"error": f"{error}; {container.label} runs on here"}

    # -- what they say -------------------------------------------------------------------------------------------------

    def _hear(self, given: ExitStack) -> None:
        left = None if self._waits_until is None else max(0.0, self._waits_until - time.monotonic())
        waiting = [each for each in self._members if not each.has_ended]
        ready = select.select([each.link for each in waiting], (), (), left)[0]
        if not ready:
            self._waits_until = None
            self._cancel("the others of the pod have not come as far in time")
        for each in waiting:
            if each.link in ready:
                self._take(each)
        self._let_on(given)

    def _take(self, member: _Member) -> None:
        try:
            message = member.link.expect(REACHED, NOT_THERE, ENDED)
        except MigrationError as error:
            member.error = f"who moved it has ended: {error}"
            member.is_unknown = self._is_given
            self._end(member)
            return
        if message.name == REACHED:
            member.reached, member.may_go_on = message.text("stage"), False
            if self._why:
                self._cancel_one(member)
            elif member.reached in _WITHIN_S and self._waits_until is None:
                self._waits_until = time.monotonic() + _WITHIN_S[member.reached]
        elif message.name == NOT_THERE:
            member.not_there = message.text("why")
        else:
            self._note(member, message)
            self._end(member)

    def _note(self, member: _Member, message: Message) -> None:
        found = message.fields.get("moved")
        if isinstance(found, dict):
            rounds = tuple(Round(**each) for each in found.pop("rounds"))
            member.moved = Moved(**found, rounds=rounds)
        else:
            member.error, member.hint = message.text("error"), message.text("hint", "")
            member.is_unknown = message.flag("unknown")

    def _end(self, member: _Member) -> None:
        member.has_ended = True
        if member.error and not self._is_given and not self._why:
            self._cancel(f"{member.container.label} is not moved: {member.error}")

    def _let_on(self, given: ExitStack) -> None:
        """Who waits for all of them goes on, when it is so."""
        if self._why:
            return
        if self._is_given:
            self._wake_or_leave()
            return
        stages = {"" if each.may_go_on else each.reached for each in self._members}
        if len(stages) != 1 or "" in stages:
            return
        stage = stages.pop()
        if stage == STOPPED:
            try:
                pods.check_shared(self._pod)
            except (TorporError, OSError) as error:
                self._cancel(str(error))
                return
        self._waits_until = None
        if stage == READY:
            # There is no way back from here.
            given.enter_context(interrupts.held())
            self._is_given = True
        for each in self._members:
            each.may_go_on = True
            with suppress(MigrationError):
                each.link.send(ON)

    def _wake_or_leave(self) -> None:
        """Of those that could not be let go there none is brought back here as long as another one runs there."""
        waiting = [each for each in self._members if not each.has_ended]
        if not all(each.not_there for each in waiting):
            return
        # The destination says of none that it is let go once it has said that none is.
        none_runs = any(each.not_there == NONE for each in waiting)
        all_failed = len(waiting) == len(self._members) and all(each.not_there == FAILED for each in waiting)
        for each in waiting:
            each.not_there = ""
            with suppress(MigrationError):
                each.link.send(WAKE if none_runs or all_failed else LEAVE)

    def _cancel(self, why: str) -> None:
        """None is given up: unless that has been decided."""
        if self._is_given or self._why:
            return
        self._why = why
        for each in self._members:
            if not each.has_ended:
                self._cancel_one(each)

    def _cancel_one(self, member: _Member) -> None:
        if not member.may_go_on:
            member.may_go_on = True
            with suppress(MigrationError):
                member.link.send(CANCEL, text=self._why)
        else:
            with suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGTERM)

    def _reap(self) -> None:
        """All come to an end: a second Ctrl-C breaks that off, and them with it."""
        for each in self._members:
            while not each.has_ended:
                self._take(each)
            each.link.close()
            with suppress(ChildProcessError):
                os.waitpid(each.pid, 0)

    def _outcome(self) -> list[Moved]:
        moved = [each.moved for each in self._members if each.moved is not None]
        if len(moved) == len(self._members):
            return moved
        failed = [each for each in self._members if each.moved is None]
        hint = "; ".join(dict.fromkeys(each.hint for each in failed if each.hint)) or None
        text = "; ".join(f"{each.container.label}: {each.error}" for each in failed)
        if not self._is_given:
            # What the others say is that they have been told to go no further.
            first = [each for each in failed if each.error not in self._why]
            text = self._why
            for each in first:
                text += "" if self._why in each.error else f"; {each.container.label}: {each.error}"
            raise MigrationError(f"{text}; all of {self._pod.label} runs on here", hint=hint)
        if moved or any(each.is_unknown for each in failed):
            known = f"; {', '.join(each.name for each in moved)} runs on {self._where}" if moved else ""
            raise UnknownEndError(
                f"{self._pod.label} does not run here as a whole any more{known}; {text}. Its network is locked here",
                hint=f"look on {self._where}; if it does not run there: torpor restore {self._pod.label} "
                f"--tcp-established, which unlocks it; if it does: podman pod rm --force {self._pod.name}",
            )
        raise MigrationError(f"{text}; {self._pod.label} has been brought back here", hint=hint)
