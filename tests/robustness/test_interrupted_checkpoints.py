"""A second checkpoint that is interrupted, at any instant and by whatever: one set is whole, and wakes bit for bit.

The earlier one as long as the program has not been killed, else the new one; and the next run leaves nothing of what
the interrupted one wrote. Of a job, of a process (a directory, an archive), and of `criu dump` into a directory of its
caller's. The program compares its memory itself, and tells of which moment it is.
"""

import ctypes
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.events import time_limit_s
from harness.held import KINDS, Held, small_room, started
from harness.processes import own_children, wait_alone
from harness.rounds import rounds
from torpor.base.ids import Pid
from torpor.kernel.procfs.task import is_dying

pytestmark = pytest.mark.root

SEED = 20261128
#: For each kind.
N_ROUNDS = rounds(2, 75)
#: After the new set has begun to count: seal, commit, kill, sums, sync are some milliseconds each.
SHORT_S = 0.02
MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Strike:
    """One interrupted checkpoint: how to run it, and how long an undisturbed one takes."""

    held: Held
    line: list[str]
    rng: random.Random
    whole_s: float

    def run(self) -> subprocess.Popen[bytes]:
        null = subprocess.DEVNULL
        return subprocess.Popen(self.line, stdin=null, stdout=null, stderr=null, env=self.held.environment())

    def wait_instant(self, engine: subprocess.Popen[bytes]) -> None:
        """Some instant of the whole run, or one soon after the new set has begun to count."""
        if self.rng.random() < 0.4:
            end = time.monotonic() + self.rng.uniform(0, self.whole_s)
        else:
            before, deadline = self.held.signature(), time.monotonic() + time_limit_s(30)
            # The instant is what is tested; an event would tell of it too late.
            while self.held.signature() == before and engine.poll() is None:
                assert time.monotonic() < deadline
            end = time.monotonic() + self.rng.uniform(0, SHORT_S)
        while time.monotonic() < end and engine.poll() is None:
            pass


def _by_signal(number: int) -> Callable[[Strike], tuple[int, Held]]:
    def strike(it: Strike) -> tuple[int, Held]:
        with it.run() as engine:
            it.wait_instant(engine)
            engine.send_signal(number)
            return engine.wait(time_limit_s(30)), it.held

    return strike


def _by_bytes(it: Strike) -> tuple[int, Held]:
    room = it.held.room
    filler = room / "filler"
    about = os.statvfs(room)
    used = (about.f_blocks - about.f_bfree) * about.f_frsize
    with open(filler, "wb") as stream:
        n_bytes = about.f_bavail * about.f_frsize - it.rng.randrange(0, int(used * 1.2), 4096)
        os.posix_fallocate(stream.fileno(), 0, n_bytes)
    with it.run() as engine:
        code = engine.wait(time_limit_s(30))
    filler.unlink()
    return code, it.held


def _by_inodes(it: Strike) -> tuple[int, Held]:
    room = it.held.room
    filler = room / "filler"
    filler.mkdir()
    about = os.statvfs(room)
    for count in range(about.f_favail - it.rng.randrange(int((about.f_files - about.f_ffree) * 1.2))):
        (filler / str(count)).touch()
    with it.run() as engine:
        code = engine.wait(time_limit_s(30))
    shutil.rmtree(filler)
    return code, it.held


def _remount(room: Path, flags: int) -> bool:
    return not _libc.mount(b"none", os.fsencode(room), None, MS_REMOUNT | MS_BIND | flags, None)


def _by_read_only(it: Strike) -> tuple[int, Held]:
    with it.run() as engine:
        it.wait_instant(engine)
        # Not while a file is open for writing: between two of them, then.
        while engine.poll() is None and not _remount(it.held.room, MS_RDONLY):
            pass
        code = engine.wait(time_limit_s(30))
    assert _remount(it.held.room, 0)
    return code, it.held


def _by_power_cut(it: Strike) -> tuple[int, Held]:
    """What a fresh engine sees after the next boot is what was there at that instant."""
    after = it.held.base / "after"
    with it.run() as engine:
        it.wait_instant(engine)
        if engine.poll() is None:
            engine.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, engine.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        subprocess.run(["cp", "-a", it.held.room, after], check=True)
        with suppress(ProcessLookupError):
            engine.send_signal(signal.SIGCONT)
        code = engine.wait(time_limit_s(30))
    assert code == 0
    return code, it.held.copied_to(after)


STRIKES: dict[str, Callable[[Strike], tuple[int, Held]]] = {
    "SIGINT": _by_signal(signal.SIGINT),
    "SIGTERM": _by_signal(signal.SIGTERM),
    "SIGKILL": _by_signal(signal.SIGKILL),
    "bytes": _by_bytes,
    "inodes": _by_inodes,
    "read-only": _by_read_only,
    "power cut": _by_power_cut,
}


def _expected(how: str, code: int, *, is_dead: bool, leave_running: bool) -> set[int]:
    """Moments that the checkpoint may be of."""
    if how == "power cut":
        return {1, 2}
    if is_dead:
        assert not leave_running
        assert code in (0, -signal.SIGKILL), f"exit code {code}, and it is dead"
        return {2}
    assert leave_running or code != 0, "it said that it is done, and it runs"
    if code == 0:
        return {2}
    # A signal between the set's counting and the end of it; a room that has become read-only in that time.
    return {1} if how in ("bytes", "inodes") else {1, 2}


def _round(kind: str, how: str, rng: random.Random, *, leave_running: bool) -> str:
    with small_room() as room, started(kind, room) as held:
        began = time.monotonic()
        line = held.checkpoint_line(held.watch.pid, leave_running=leave_running)
        known = own_children() | {held.watch.pid}
        code, found = STRIKES[how](Strike(held, line, rng, held.took_s))
        # A caretaker, ours by now, ends what a killed dump has begun to kill.
        wait_alone(known)
        is_dead = is_dying(Pid(held.watch.pid))
        assert not is_dead or held.watch.wait_ended(time_limit_s(20))
        what = f"{kind}, {how}, leave_running={leave_running}: {code} after {time.monotonic() - began:.2f} s"
        try:
            moments = _expected(how, code, is_dead=is_dead, leave_running=leave_running)
            if not is_dead:
                assert held.finish(held.watch) == 2, "the program itself"
            held.watch.reap()
            if kind == "job":
                assert found.finish(found.restore(1)) == 1
            with found.restore() as watch:
                if kind != "job" or not found.other_boot:
                    found.checkpoint(watch)
                    assert not found.rubbish()
                moment = found.finish(watch)
            assert moment in moments, f"the checkpoint is of moment {moment}"
            with found.restore() as watch:
                assert found.finish(watch) == moment
        except AssertionError as error:
            error.add_note(what)
            raise
        if code > 0 and how not in ("bytes", "inodes"):
            return f"{how}: taken back" if moment == 1 else f"{how}: finished"
        return f"{how}: {'dead' if is_dead else 'alive'}, moment {moment}"


@pytest.mark.parametrize("kind", KINDS)
def test_one_set_is_whole(kind: str) -> None:
    rng, met = random.Random(f"{SEED}{kind}"), Counter[str]()
    for each in range(N_ROUNDS):
        # All of them by all kinds together, even where rounds are few.
        how = list(STRIKES)[(each + 2 * KINDS.index(kind)) % len(STRIKES)]
        leave_running = (each // len(STRIKES) + KINDS.index(kind)) % 2 == 1
        met[_round(kind, how, rng, leave_running=leave_running)] += 1
    print(kind, dict(sorted(met.items())))
