"""kill -9 of the restorer at random instants, while the peer of a TCP connection goes on sending: it can be restored.

The peer gets no reset from a machine that does not know its connection: what the dump has locked stays locked until the
tree goes on.  Once it does, what the killed restore had left is gone, or it has succeeded.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.events import ProcessWatch, time_limit_s
from harness.instants import Instants
from harness.processes import reap_adopted
from harness.rounds import iter_rounds, rounds
from harness.streams import FarEnd, NearEnd
from torpor.base.errors import TorporError
from torpor.base.ids import Pid
from torpor.engine.options import RestoreOptions, nobody
from torpor.engine.restore.run import restore
from torpor.kernel.procfs.status import read_status
from torpor.kernel.procfs.task import is_dying, read_children
from torpor.objects.policy import NetworkPolicy, Policies

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]

N_KILLS = rounds(20, 100)
SEED = 20240214


def _fork_restorer(directory: Path, notify: Callable[[str, int], None] = nobody) -> int:
    restorer = os.fork()
    if restorer:
        return restorer
    try:
        policies = Policies(network=NetworkPolicy(tcp_established=True))
        restore(directory, RestoreOptions(policies=policies, notify=notify))
    except TorporError as error:
        os.write(2, f"{error.describe()}\n".encode())
    finally:
        os._exit(1)


def _wait_settled(pid: int, others: set[Pid]) -> bool:
    """Wait until *pid* is gone or runs free, with nobody left who would end it; whether it runs.

    *others* are children of ours that have nothing to do with it.
    """
    deadline = time.monotonic() + time_limit_s(10)
    while True:
        try:
            status = read_status(Pid(pid))
        except (FileNotFoundError, ProcessLookupError):
            return False
        if status.state in "ZX":
            os.waitpid(pid, 0)  # it has become ours
            return False
        runs_free = not status.tracer and status.name.startswith("python") and status.state in "RSD"
        runs_free = runs_free and not is_dying(Pid(pid))
        reap_adopted()
        # The guardian, which has become ours too, may be about to end the tree.
        is_alone = not set(read_children(Pid(os.getpid()))) - others - {pid}
        # A second look: it may have ended it between the first and this, and then it is ours to wait for.
        if runs_free and is_alone and not is_dying(Pid(pid)):
            return True
        assert time.monotonic() < deadline, f"state {status.state}, traced by {status.tracer}"
        time.sleep(0.005)


def test_restorer_killed() -> None:
    met: Counter[str] = Counter()
    with FarEnd() as far:
        far.listen("127.0.0.1")
        near = NearEnd("127.0.0.1", far.port)
        far.checkpoint()
        began = time.monotonic()
        far.restore()
        instants = Instants(SEED, time.monotonic() - began)
        for _ in iter_rounds(N_KILLS, met, "killed"):
            pid = far.pid
            far.checkpoint()
            others = set(read_children(Pid(os.getpid())))
            restorer = _fork_restorer(far.images)
            # The instant is what is tested; nothing is waited for.
            time.sleep(instants.draw())
            os.kill(restorer, signal.SIGKILL)
            os.waitpid(restorer, 0)
            runs = _wait_settled(pid, others)
            instants.learn(finished=runs)
            if runs:
                assert far.root is not None
                far.root.close()
                far.root = ProcessWatch(pid)
            else:
                met["killed"] += 1
                far.restore()
            assert near.is_talking
        sent, received = near.finish()
        assert far.counts() == (received, sent)
    assert met["killed"]


def test_killed_just_before_it_lets_go() -> None:
    """Nobody runs for even an instant then, with sockets in repair mode: the program would take it for an error."""

    def die(action: str, pid: int) -> None:
        if action == "pre-resume":
            os.kill(os.getpid(), signal.SIGKILL)

    with FarEnd() as far:
        far.listen("127.0.0.1")
        near = NearEnd("127.0.0.1", far.port)
        for _ in range(rounds(8, 100)):
            pid = far.pid
            far.checkpoint()
            others = set(read_children(Pid(os.getpid())))
            assert os.WIFSIGNALED(os.waitpid(_fork_restorer(far.images, die), 0)[1])
            assert not _wait_settled(pid, others)
            assert far.log() == f"port {far.port}\n"
            far.restore()
            assert near.is_talking
        sent, received = near.finish()
        assert far.counts() == (received, sent)
