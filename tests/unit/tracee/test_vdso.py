"""Nobody is stopped in the midst of the vdso, as far as that can be, and who sleeps is left in peace."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from torpor.base.ids import Pid
from torpor.kernel.procfs.maps import find_vdso, read_maps
from torpor.tracee import vdso
from torpor.tracee.thread import Thread

_SPINS = "import time; print(1, flush=True); now = time.monotonic\nwhile True: now()"


@contextmanager
def _stopped(*command: str) -> Iterator[Thread]:
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            thread = Thread(Pid(process.pid), Pid(process.pid))
            thread.seize()
            thread.interrupt()
            thread.wait_interrupted()
            yield thread
        finally:
            process.kill()


def test_its_place_is_what_maps_say() -> None:
    with _stopped("sh", "-c", "echo; exec sleep 100") as thread:
        found = [range(vma.start, vma.end) for vma in read_maps(thread.tgid) if vma.is_vdso]
        assert [find_vdso(thread.tgid)] == found


def test_who_asks_for_the_time_without_a_pause_is_stopped_elsewhere() -> None:
    with _stopped(sys.executable, "-S", "-c", _SPINS) as thread:
        place = vdso.Vdso(thread.tgid)
        for _ in range(20):
            thread.cont()
            thread.interrupt()
            thread.wait_interrupted()
            place.leave(thread)
            assert thread.get_regs().ip not in find_vdso(thread.tgid)


def test_who_waits_in_a_call_is_not_let_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with _stopped("sh", "-c", "echo; exec sleep 100") as thread:
        # Until it is in the call: there is no event for that.
        while not thread.get_regs().in_syscall:
            thread.cont()
            thread.interrupt()
            thread.wait_interrupted()
        monkeypatch.setattr(vdso, "find_vdso", lambda pid: range(1 << 64))
        monkeypatch.setattr(Thread, "cont", lambda *_: pytest.fail("it was let run"))
        vdso.Vdso(thread.tgid).leave(thread)


def test_who_stays_in_it_is_left_there_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vdso, "find_vdso", lambda pid: range(1 << 64))
    monkeypatch.setattr(vdso, "_TRIES", 3)
    with _stopped(sys.executable, "-S", "-c", "print(1, flush=True)\nwhile True: pass") as thread:
        vdso.Vdso(thread.tgid).leave(thread)
        thread.get_regs()  # it is stopped
