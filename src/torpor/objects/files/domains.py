"""What SELinux labels by the task that makes it, and nobody can label otherwise: pipes.

For each label a process of ours, which has given itself that context, makes them.  It is no part of the tree, and ends
when all files are open.
"""

from __future__ import annotations

from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.kernel import lsm
from torpor.kernel.arch import nr
from torpor.kernel.pidfd import getfd, open_pidfd
from torpor.kernel.uapi.fcntl import AT_FDCWD, O_WRONLY
from torpor.objects.session import RestoreContext, RestoreStage
from torpor.tracee.batch import Batch, RemoteCallError
from torpor.tracee.remote import kill_and_reap
from torpor.tracee.stub import Stub, find_area, spawn


class Domains:
    """A process for each label that was asked for; a part of the context."""

    def __init__(self, context: RestoreContext) -> None:
        self._makers: dict[str, tuple[Stub, OwnedFd]] = {}
        context.at(RestoreStage.CLOSED, self._close)

    def make_pipe(self, label: str, flags: int) -> tuple[OwnedFd, OwnedFd]:
        """pipe2(2) in a process with that label; both ends, ours.  RestoreError where we may not make such a one."""
        stub, pidfd = self._maker(label)
        batch = Batch()
        room = batch.out(8)
        batch.call(nr.pipe2, room, flags)
        stub.runner.run(batch)
        numbers = [int.from_bytes(room.bytes()[at : at + 4], "little") for at in (0, 4)]
        reader, writer = (OwnedFd(getfd(pidfd.fileno(), number)) for number in numbers)
        batch = Batch()
        for number in numbers:
            batch.call(nr.close, number)
        stub.runner.run(batch)
        return reader, writer

    def _maker(self, label: str) -> tuple[Stub, OwnedFd]:
        if label not in self._makers:
            stub = spawn(find_area(()), keep_fds={})
            try:
                pidfd = OwnedFd(open_pidfd(stub.thread.tgid))
                self._makers[label] = stub, pidfd
                _enter(stub, label)
            except RemoteCallError as error:
                own = lsm.own_label()
                why = lsm.denial(own, label, "process", "dyntransition") or error
                raise RestoreError(f"a pipe with the label {label} cannot be made: {why}") from error
        return self._makers[label]

    def _close(self) -> None:
        for stub, pidfd in self._makers.values():
            kill_and_reap([stub.thread])
            stub.life.close()
            pidfd.close()
        self._makers.clear()


def _enter(stub: Stub, label: str) -> None:
    batch = Batch()
    attribute = batch.call(nr.openat, AT_FDCWD, batch.path("/proc/thread-self/attr/current"), O_WRONLY, 0)
    data = batch.data(label.encode(errors="surrogateescape"))
    batch.call(nr.write, attribute, data, data.size)
    batch.call(nr.close, attribute)
    stub.runner.by_calls = not lsm.may_signal_as(label, stub.runner.stop_signal)
    stub.runner.run(batch)
