"""A thread that works for us: its end is heard, wherever we were broken off."""

import random
import threading

from harness.broken_off import break_off
from harness.events import time_limit_s
from harness.rounds import rounds
from torpor.base.worker import Worker


def test_its_end_is_waited_for() -> None:
    may_end, done = threading.Event(), list[int]()

    def work() -> None:
        may_end.wait()
        done.append(1)

    worker = Worker(work)
    assert _state(worker) == (False, False) and worker.wait()  # nobody works
    worker.begin()
    assert [worker.wait(0), worker.wait(0.01)] == [False, False] and _state(worker) == (True, False)
    may_end.set()
    assert worker.wait(time_limit_s(10)) and _state(worker) == (True, True) and done == [1]
    assert worker.wait() and worker.wait(0)


def _state(worker: Worker) -> tuple[bool, bool]:
    return worker.has_begun, worker.has_ended


def test_work_that_fails_has_ended() -> None:
    def work() -> None:
        raise SystemExit

    worker = Worker(work)
    worker.begin()
    assert worker.wait(time_limit_s(10))


def test_whoever_waits_may_be_broken_off_at_any_instant() -> None:
    chance = random.Random(7)
    for _ in range(rounds(300, 5000)):
        workers: list[Worker] = []

        def work(workers: list[Worker] = workers) -> None:
            workers.append(Worker(lambda: None))
            workers[-1].begin()
            workers[-1].wait()

        break_off(work, chance.uniform(0.0005, 0.003))
        assert all(worker.wait(time_limit_s(10)) for worker in workers)
