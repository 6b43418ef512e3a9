"""Whoever reads the messages of a POSIX queue for a dump is killed at random: none is lost, doubled or moved."""

import multiprocessing
import os
import random
from multiprocessing.synchronize import Event

from harness.events import time_limit_s
from torpor.kernel import mqueue
from torpor.kernel.syscall import address_of
from torpor.objects.files import mqueue_data

_N_KILLS = 60
_MESSAGES = [(priority, f"message {number}".encode()) for priority in (9, 4, 0) for number in range(3)]


def _read_for_ever(fd: int, reading: Event) -> None:
    while True:
        mqueue_data.peek(fd)
        reading.set()


def _contents(fd: int) -> list[tuple[int, bytes]]:
    return [(message.priority, message.data) for message in mqueue_data.peek(fd)]


def _kill_a_reader(fd: int, n_spins: int) -> None:
    """Until it and the child that it may have are both gone."""
    context = multiprocessing.get_context("fork")
    reading = context.Event()
    alive, held = os.pipe()
    reader = context.Process(target=_read_for_ever, args=(fd, reading))
    reader.start()
    os.close(held)
    assert reading.wait(time_limit_s(30))
    for _ in range(n_spins):
        continue
    reader.kill()
    reader.join()
    assert os.read(alive, 1) == b""
    os.close(alive)


def test_no_message_is_lost() -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    name = f"torpor-test-{os.getpid()}"
    fd = mqueue.create(name, len(_MESSAGES), 100)
    mqueue.unlink(name)
    try:
        for priority, text in _MESSAGES:
            data = bytearray(text)
            mqueue.send(fd, address_of(data), len(data), priority)
        for attempt in range(_N_KILLS):
            _kill_a_reader(fd, chance.randrange(100_000))
            assert _contents(fd) == _MESSAGES, f"seed {seed}, attempt {attempt}"
    finally:
        os.close(fd)
