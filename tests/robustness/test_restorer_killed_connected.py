"""kill -9 of the restorer at random instants, while the peer of a TCP connection goes on sending: it can be restored.

The peer gets no reset from a machine that does not know its connection: what the dump has locked stays locked until the
tree goes on.  Once it does, what the killed restore had left is gone, or it has succeeded.
"""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from harness.events import ProcessWatch, time_limit_s
from harness.instants import Instants
from harness.processes import reap_adopted
from harness.rounds import iter_rounds, rounds
from harness.streams import FarEnd, NearEnd
from torpor.base.errors import TorporError
from torpor.base.ids import Pid
from torpor.base.records import replace
from torpor.engine.options import RestoreOptions, nobody
from torpor.engine.restore import finishing, run
from torpor.engine.restore.phases import RESTORE, Phase
from torpor.engine.restore.run import restore
from torpor.engine.restore.session import RestoreSession
from torpor.kernel import interrupts
from torpor.kernel.procfs.status import read_status
from torpor.kernel.procfs.task import is_dying, read_children
from torpor.kernel.sock_diag import read_inet
from torpor.objects.policy import NetworkPolicy, Policies
from torpor.tracee.caretaker import Caretaker

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]

N_KILLS = rounds(20, 100)
SEED = 20240214
_LISTEN = 1 << 10


def _fork_restorer(
    directory: Path, notify: Callable[[str, int], None] = nobody, before: Callable[[], None] = lambda: None
) -> int:
    """Its pid; *before* is done in it."""
    restorer = os.fork()
    if restorer:
        return restorer
    try:
        before()
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


_FULL = """
import hashlib, os, socket, sys, time
listener = socket.create_server(("127.0.0.1", 0))
print("port", listener.getsockname()[1], flush=True)
peer, _ = listener.accept()
listener.close()
peer.setblocking(False)
sent = hashlib.sha256()
n_sent = 0
try:
    while True:
        data = os.urandom(5000)
        n = peer.send(data)
        sent.update(data[:n])
        n_sent += n
except BlockingIOError:
    print("full", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
peer.setblocking(True)
peer.shutdown(socket.SHUT_WR)
received = hashlib.sha256()
n_received = 0
try:
    while data := peer.recv(50000):
        received.update(data)
        n_received += len(data)
    print("counts", n_sent, sent.hexdigest(), n_received, received.hexdigest(), flush=True)
except OSError as error:
    print("failed", repr(error), flush=True)
"""


def _at(name: str, action: Callable[[], None], *, before: bool) -> Callable[[], None]:
    """What has a restore in this process do something just before or after that phase."""

    def prepare() -> None:
        def acting(phase: Phase) -> Phase:
            def work(session: RestoreSession) -> None:
                if not before:
                    phase.run(session)
                action()
                if before:
                    phase.run(session)

            return replace(phase, run=work) if phase.name == name else phase

        run.RESTORE = tuple(acting(phase) for phase in RESTORE)  # type: ignore[attr-defined]

    return prepare


def _kill_at(name: str, *, before: bool) -> Callable[[], None]:
    """The same, ended by SIGKILL."""
    return _at(name, lambda: os.kill(os.getpid(), signal.SIGKILL), before=before)


def _kill_between() -> None:
    """The kernel ends nobody any more, and the caretaker still does."""

    def add(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def guarded(session: RestoreSession) -> None:
        Caretaker.add = add  # type: ignore[method-assign,assignment]
        finishing.commit(session)

    phases = (replace(phase, run=guarded) if phase.name == "commit" else phase for phase in RESTORE)
    run.RESTORE = tuple(phases)  # type: ignore[attr-defined]


#: Instead of what the dump has locked.
_HELD = """flush ruleset
table inet held {
    chain output {
        type filter hook output priority 0
        meta l4proto tcp meta mark != 0xc114 drop
    }
}
"""
_INSTANTS = {
    "in repair mode": (_kill_at("connected", before=True), False),
    "alive behind the lock": (_kill_at("connected", before=False), False),
    "before the commit": (_kill_at("commit", before=True), False),
    "within the commit": (_kill_between, False),
    "after the commit": (_kill_at("commit", before=False), True),
    "unlocked": (_kill_at("network", before=False), True),
    "before it lets go": (_kill_at("go", before=True), True),
}


@pytest.mark.parametrize(
    ("is_locked", "is_heard"),
    [(True, True), (False, True), (True, False)],
    # A socket with nothing to read ends with a FIN and stays to send it, one with something by a reset.
    ids=["locked by the dump", "locked by the restore", "nothing to read"],
)
@pytest.mark.parametrize("instant", list(_INSTANTS))
def test_killed_around_the_commit(instant: str, tmp_path: Path, *, is_locked: bool, is_heard: bool) -> None:
    """Before it nobody ran, no packet left, and it can be restored; after it all run, and packets come and go."""
    die, goes_on = _INSTANTS[instant]
    go = tmp_path / "go"
    with FarEnd() as far:
        far.start([sys.executable, "-c", _FULL, str(go)])
        far.wait_log(r"port \d+\n")
        with socket.create_connection(("127.0.0.1", far.port)) as near:
            far.wait_log("full")
            near.setblocking(False)
            sent = b""
            with suppress(BlockingIOError):
                while is_heard:
                    data = os.urandom(5000)
                    sent += data[: near.send(data)]
            pid = far.pid
            far.checkpoint()
            if not is_locked:
                _nft(_HELD)  # as another machine would, on which nobody has the address yet
            others = set(read_children(Pid(os.getpid())))
            assert os.WIFSIGNALED(os.waitpid(_fork_restorer(far.images, before=die), 0)[1])
            runs = _wait_settled(pid, others)
            assert runs == goes_on
            _wait_alone(others | {Pid(pid)})
            assert ("CRIU" in _tables()) == (not goes_on and is_locked)
            if not runs:
                far.restore()
            assert far.root is not None
            far.root.close()
            far.root = ProcessWatch(pid)
            assert "CRIU" not in _tables()
            _nft("flush ruleset")
            go.touch()
            near.settimeout(time_limit_s(20))
            near.shutdown(socket.SHUT_WR)
            received = b""
            while data := near.recv(50000):
                received += data
        far.wait_log(r"counts .*\n|failed .*\n", timeout_s=time_limit_s(30))
        counts = [str(len(received)), _digest(received), str(len(sent)), _digest(sent)]
        assert far.log().splitlines()[-1].split() == ["counts", *counts]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("phase", "goes_on"), [("announce", False), ("commit", True), ("go", True)])
def test_asked_to_end_around_the_commit(phase: str, number: int, *, goes_on: bool) -> None:
    """Before it the restore is taken back; once it has begun there is no way back, and a signal changes nothing."""

    def prepare() -> None:
        interrupts.catch()
        _at(phase, lambda: os.kill(os.getpid(), number), before=True)()

    with FarEnd() as far:
        far.listen("127.0.0.1")
        near = NearEnd("127.0.0.1", far.port)
        pid = far.pid
        far.checkpoint()
        others = set(read_children(Pid(os.getpid())))
        os.waitpid(_fork_restorer(far.images, before=prepare), 0)
        assert _wait_settled(pid, others) == goes_on
        assert ("CRIU" in _tables()) != goes_on
        if not goes_on:
            far.restore()
        assert far.root is not None
        far.root.close()
        far.root = ProcessWatch(pid)
        assert near.is_talking
        sent, received = near.finish()
        assert far.counts() == (received, sent)


def test_who_was_stopped_stays_stopped() -> None:
    """Also if the kernel lets go, because the restorer has been killed; SIGCONT has all go on."""
    with FarEnd() as far:
        far.listen("127.0.0.1")
        near = NearEnd("127.0.0.1", far.port)
        pid = far.pid
        _await_accepted()
        os.kill(pid, signal.SIGSTOP)
        _await_state(pid, "T")
        far.checkpoint()
        others = set(read_children(Pid(os.getpid())))
        die = _kill_at("commit", before=False)
        assert os.WIFSIGNALED(os.waitpid(_fork_restorer(far.images, before=die), 0)[1])
        _wait_alone(others | {Pid(pid)})
        _await_state(pid, "T")
        assert not _tables()
        assert far.root is not None
        far.root.close()
        far.root = ProcessWatch(pid)
        os.kill(pid, signal.SIGCONT)
        sent, received = near.finish()
        assert far.counts() == (received, sent)


def _await_accepted() -> None:
    """Stopped before, it would never accept; once it has, it listens no longer."""
    deadline = time.monotonic() + time_limit_s(10)
    while read_inet(socket.AF_INET, socket.IPPROTO_TCP, _LISTEN):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _await_state(pid: int, state: str) -> None:
    deadline = time.monotonic() + time_limit_s(10)
    while (status := read_status(Pid(pid))).state != state or status.tracer:
        assert time.monotonic() < deadline, status.state
        time.sleep(0.001)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _wait_alone(known: set[Pid]) -> None:
    """Wait until whoever the restorer had left to see to things has done so."""
    deadline = time.monotonic() + time_limit_s(10)
    while set(read_children(Pid(os.getpid()))) - known:
        assert time.monotonic() < deadline
        reap_adopted()
        time.sleep(0.001)


def _nft(text: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


def _tables() -> str:
    return subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
