"""kill -9 of the dumper at random instants, while the target's TCP connection to the outside is full of bytes.

The network is unlocked, no socket stays in repair mode, and the connection goes on; or, when the target was to end, it
runs on or can be restored.
"""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.events import time_limit_s
from harness.instants import Instants, Told
from harness.rounds import iter_rounds, rounds
from harness.streams import FarEnd, NearEnd
from torpor.base.errors import TorporError
from torpor.base.ids import Pid
from torpor.engine.dump.run import dump
from torpor.engine.options import DumpOptions
from torpor.kernel.procfs.status import read_status
from torpor.objects.policy import NetworkPolicy, Policies

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]

N_KILLS = rounds(50, 150)
N_ENDS = rounds(12, 60)
SEED = 20240214


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + time_limit_s(10)
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def _is_unlocked() -> bool:
    return "CRIU" not in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout


def _fork_dumper(pid: int, directory: Path, *, leave_running: bool, told: Told | None = None) -> int:
    """Its pid.  *told*: of each dump of a target that runs on."""
    options = DumpOptions(leave_running=leave_running, policies=Policies(network=NetworkPolicy(tcp_established=True)))
    dumper = os.fork()
    if dumper:
        return dumper
    try:
        dump(pid, directory, options)
        while told is not None:
            told.say()
            dump(pid, directory, options)
    except TorporError as error:
        os.write(2, f"{error.describe()}\n".encode())
    finally:
        os._exit(1)


def _kill_at_random_instant(dumper: int, instants: Instants) -> None:
    # The instant is what is tested; nothing is waited for.
    time.sleep(instants.draw())
    os.kill(dumper, signal.SIGKILL)
    os.waitpid(dumper, 0)


def _state(pid: int) -> str:
    """``dead``, ``free``, or what it is on its way from."""
    try:
        status = read_status(Pid(pid))
    except (FileNotFoundError, ProcessLookupError):
        return "dead"
    if status.state in "ZX":
        return "dead"
    return "free" if not status.tracer and status.state in "RSD" else f"{status.state}, traced by {status.tracer}"


def test_left_running() -> None:
    with FarEnd() as far, Told() as told:
        far.listen("127.0.0.1")
        near = NearEnd("127.0.0.1", far.port)
        began, dumper = time.monotonic(), _fork_dumper(far.pid, far.images, leave_running=True, told=told)
        told.wait()
        # Two dumps long, so that some fall into it that find the images of an earlier one.
        instants = Instants(SEED, 2 * (time.monotonic() - began))
        os.kill(dumper, signal.SIGKILL)
        os.waitpid(dumper, 0)
        told.take()
        for _ in range(N_KILLS):
            _kill_at_random_instant(_fork_dumper(far.pid, far.images, leave_running=True, told=told), instants)
            instants.learn(finished=told.take() > 1)
            _wait(lambda: _state(far.pid) == "free", "the target is not let go")
            assert near.is_talking
        _wait(_is_unlocked, "the network stays locked")
        sent, received = near.finish()
        assert far.counts() == (received, sent)


def test_ended() -> None:
    met: Counter[str] = Counter()
    with FarEnd() as far:
        far.listen("127.0.0.1")
        near = NearEnd("127.0.0.1", far.port)
        began = time.monotonic()
        os.waitpid(_fork_dumper(far.pid, far.images, leave_running=False), 0)
        instants = Instants(SEED, time.monotonic() - began)
        far.reap()
        far.restore()
        for _ in iter_rounds(N_ENDS, met, "dead", "free"):
            dumper = _fork_dumper(far.pid, far.images, leave_running=False)
            _kill_at_random_instant(dumper, instants)
            _wait(lambda: _state(far.pid) in ("free", "dead"), "the target is neither let go nor dead")
            # A caretaker that ends the tree does so while we look.
            _wait(lambda: _state(far.pid) == "dead" or _is_unlocked(), "the network stays locked")
            state = _state(far.pid)
            met[state] += 1
            instants.learn(finished=state == "dead")
            if state == "dead":
                far.reap()
                far.restore()
            assert near.is_talking
        assert met["dead"] and met["free"], met
        assert _is_unlocked()
        sent, received = near.finish()
        assert far.counts() == (received, sent)
