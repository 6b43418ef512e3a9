"""Missing pages of a process, brought from whatever source: late, few at a time, never."""

import errno
import hashlib
import mmap
import os
import random
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.events import become_subreaper, time_limit_s
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.kernel import missing
from torpor.kernel.arch import nr
from torpor.kernel.procfs.task import read_children
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.vm import PAGE_SIZE
from torpor.migrate.areas import Areas
from torpor.migrate.filling import Filler

pytestmark = pytest.mark.root

N_PAGES = 64
IDENT = 7


class Memory:
    """A source that has the memory of one process; *at_most* pages an answer, and none while it is *silent*."""

    def __init__(self, start: int, content: bytes, *, at_most: int = N_PAGES, silent: bool = False) -> None:
        self.start, self.content, self.at_most, self.silent = start, content, at_most, silent
        self.asked: deque[tuple[int, int]] = deque()
        self.n_asked = 0

    def ask(self, ident: int, start: int, n_bytes: int) -> None:
        assert ident == IDENT
        self.n_asked += 1
        self.asked.append((start, min(n_bytes, self.at_most * PAGE_SIZE)))

    def answer(self) -> memoryview | None:
        if self.silent or not self.asked:
            return None
        start, n_bytes = self.asked.popleft()
        offset = start - self.start
        return memoryview(bytearray(self.content[offset : offset + n_bytes]))

    def fileno(self) -> int:
        return -1


@contextmanager
def child(work: Callable[[mmap.mmap], bytes]) -> Iterator[tuple[int, int, OwnedFd, socket.socket]]:
    """A process with an area of memory of which nothing is there: its pid, the area's address, what tells of faults,
    and a socket that gets what *work* finds, when it has been told to look.
    """
    near, far = socket.socketpair()
    pid = os.fork()
    if not pid:
        try:
            area = mmap.mmap(-1, N_PAGES * PAGE_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            start = address_of(memoryview(area))
            faults = syscall("userfaultfd", nr.userfaultfd, missing.FLAGS)
            missing.begin(faults)
            missing.register(faults, start, N_PAGES * PAGE_SIZE)
            socket.send_fds(far, [start.to_bytes(8, "little")], [faults])
            os.close(faults)
            far.recv(1)
            far.sendall(work(area))
        finally:
            os._exit(0)
    try:
        data, fds, _, _ = socket.recv_fds(near, 8, 1)
        far.close()
        yield pid, int.from_bytes(data, "little"), OwnedFd(fds[0]), near
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        near.close()


def digest(area: mmap.mmap) -> bytes:
    return hashlib.sha256(area[:]).digest()


CONTENT = random.Random(1).randbytes(N_PAGES * PAGE_SIZE)


@pytest.mark.parametrize("at_most", [1, 5, N_PAGES])
@pytest.mark.parametrize("in_background", [True, False])
def test_all_pages_come(at_most: int, in_background: bool) -> None:
    with child(digest) as (_, start, faults, talk):
        filler = Filler(Memory(start, CONTENT, at_most=at_most))
        filler.add(IDENT, faults, [(start, start + N_PAGES * PAGE_SIZE)])
        filler.in_background = in_background
        talk.sendall(b"x")
        while not filler.is_done:
            filler.step(5)
        assert talk.recv(32) == hashlib.sha256(CONTENT).digest()
        assert filler.figures.n_brought == N_PAGES
        assert filler.figures.n_waited == N_PAGES or in_background


def test_what_is_not_missing_is_zeroes() -> None:
    with child(digest) as (_, start, faults, talk):
        filler = Filler(Memory(start, CONTENT))
        filler.add(IDENT, faults, [(start, start + 8 * PAGE_SIZE), (start + 60 * PAGE_SIZE, start + 64 * PAGE_SIZE)])
        talk.sendall(b"x")
        while not filler.is_done:
            filler.step(5)
        wanted = CONTENT[: 8 * PAGE_SIZE] + bytes(52 * PAGE_SIZE) + CONTENT[60 * PAGE_SIZE :]
        assert talk.recv(32) == hashlib.sha256(wanted).digest()


def test_children_made_meanwhile_get_theirs() -> None:
    def work(area: mmap.mmap) -> bytes:
        ready, told = os.pipe()
        if not os.fork():
            os.write(told, digest(area))
            os._exit(0)
        return digest(area) + os.read(ready, 32)

    with child(work) as (_, start, faults, talk):
        filler = Filler(Memory(start, CONTENT, at_most=3))
        filler.add(IDENT, faults, [(start, start + N_PAGES * PAGE_SIZE)])
        talk.sendall(b"x")
        while not filler.is_done:
            filler.step(5)
        assert talk.recv(64, socket.MSG_WAITALL) == hashlib.sha256(CONTENT).digest() * 2


def test_a_source_that_breaks_is_followed_by_another() -> None:
    with child(digest) as (_, start, faults, talk):
        source = Memory(start, CONTENT, silent=True)
        filler = Filler(source)
        filler.add(IDENT, faults, [(start, start + N_PAGES * PAGE_SIZE)])
        talk.sendall(b"x")
        while not source.n_asked:
            filler.step(0.1)
        filler.use(Memory(start, CONTENT))
        while not filler.is_done:
            filler.step(5)
        assert talk.recv(32) == hashlib.sha256(CONTENT).digest()


def test_who_has_died_misses_nothing() -> None:
    with child(digest) as (pid, start, faults, _):
        filler = Filler(Memory(start, CONTENT, at_most=1))
        filler.add(IDENT, faults, [(start, start + N_PAGES * PAGE_SIZE)])
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        filler.in_background = True
        while not filler.is_done:
            filler.step(5)


def test_given_up_nobody_gets_zeroes_for_what_has_not_come() -> None:
    with child(digest) as (pid, start, faults, talk):
        filler = Filler(Memory(start, CONTENT, silent=True))
        filler.add(IDENT, faults, [(start, start + N_PAGES * PAGE_SIZE)])
        assert filler.n_missing == N_PAGES * PAGE_SIZE
        assert filler.give_up() == 1
        talk.sendall(b"x")
        assert talk.recv(32) == b""
        info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert info is not None and info.si_status == signal.SIGBUS


def test_given_up_on_a_kernel_that_poisons_nothing_whoever_touches_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one who holds it ends with the last who has the memory."""

    def cannot(fd: int, start: int, length: int) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(missing, "can_poison", lambda: False)
    monkeypatch.setattr(missing, "poison", cannot)
    become_subreaper()
    with child(digest) as (pid, start, faults, talk):
        filler = Filler(Memory(start, CONTENT, silent=True))
        filler.add(IDENT, faults, [(start, start + N_PAGES * PAGE_SIZE)])
        before = read_children(Pid(os.getpid()))
        assert filler.give_up() == 1
        (holder,) = set(read_children(Pid(os.getpid()))) - set(before)
        talk.sendall(b"x")
        deadline = time.monotonic() + time_limit_s(20)
        # proc_pid_syscall(5): blocked, and not in a system call.
        while not Path(f"/proc/{pid}/syscall").read_text().startswith("-1 "):
            assert time.monotonic() < deadline
            os.sched_yield()
        talk.setblocking(False)
        with pytest.raises(BlockingIOError):
            talk.recv(32)
    assert os.waitpid(holder, 0)[1] == 0


def test_areas_against_a_model() -> None:
    """Random takings and movings, page by page beside a dictionary."""
    rng = random.Random(2)
    for _ in range(50):
        areas, model = Areas([(0, 64, 1000)]), {at: 1000 + at for at in range(64)}
        for _ in range(30):
            start, length = rng.randrange(80), rng.randrange(1, 20)
            if rng.random() < 0.6:
                taken = {first + at: source + at for first, last, source in areas.take(start, start + length)
                         for at in range(last - first)}  # fmt: skip
                assert taken == {at: model.pop(at) for at in range(start, start + length) if at in model}
            else:
                to = rng.choice((start + length, start + 100))
                areas.move(start, to, length)
                moved = {at + to - start: model.pop(at) for at in range(start, start + length) if at in model}
                for at in range(to, to + length):
                    model.pop(at, None)
                model.update(moved)
            found = {first + at: source + at for first, last, source in areas for at in range(last - first)}
            assert found == model
            assert all(areas.has(at) is (at in model) for at in range(200))
