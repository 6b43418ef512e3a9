"""Several of a kind at a time, each in a process of its own.

Who stops tasks, enters namespaces and catches signals does so for a whole process.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from torpor.base.errors import TorporError
from torpor.base.typed import NoReturn
from torpor.kernel import errand, interrupts

#: What came of one: what was returned, as JSON has it, or an error in words and its exit code.
Outcome = tuple[object, str, int]


def run(words: Sequence[str], most: int, work: Callable[[str], object]) -> dict[str, Outcome]:
    """Do *work* on each word, on no more than *most* at a time.

    When we are asked to end, nothing more is begun, those under way are asked to end (by a terminal's Ctrl-C they have
    been), and are waited for; the words that never had their turn are not in what is returned.
    """
    waiting, found = list(words), dict[str, Outcome]()
    under_way: dict[int, tuple[str, int]] = {}
    stop: interrupts.Interrupted | None = None
    try:
        while waiting or under_way:
            try:
                while waiting and stop is None and len(under_way) < most:
                    word = waiting.pop(0)
                    _begin(word, work, under_way)
                if not under_way:
                    break
                for reader in select.select(list(under_way), (), ())[0]:
                    word, pid = under_way.pop(reader)
                    found[word] = _end(reader, pid)
            except interrupts.Interrupted as asked:
                stop = asked
                if asked.number == signal.SIGTERM:
                    for _, pid in under_way.values():
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGTERM)
    finally:
        for reader in under_way:
            os.close(reader)
    if stop is not None and not found:
        raise stop
    return found


def _begin(word: str, work: Callable[[str], object], under_way: dict[int, tuple[str, int]]) -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    with errand.deaf() as mask:
        pid = os.fork()
        if not pid:
            _work(word, work, reader, writer, mask)
        os.close(writer)
        under_way[reader] = (word, pid)


def _work(word: str, work: Callable[[str], object], reader: int, writer: int, mask: Iterable[int]) -> NoReturn:
    code = 1
    try:
        os.close(reader)
        outcome = _one(word, work, mask)
        code = outcome[2]
        os.write(writer, json.dumps(outcome).encode())
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _one(word: str, work: Callable[[str], object], mask: Iterable[int]) -> Outcome:
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return work(word), "", 0
    except TorporError as error:
        return None, error.describe(), error.exit_code
    except interrupts.Interrupted as stop:
        return None, f"ended by signal {stop.number}", 128 + stop.number
    except Exception as error:
        traceback.print_exc()
        return None, f"{type(error).__name__}: {error}", 1


def _end(reader: int, pid: int) -> Outcome:
    with open(reader, "rb") as stream:
        said = stream.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        value, error, exit_code = json.loads(said)
    except ValueError:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
        return None, f"the process that was at it {how}", 1
    return value, str(error), int(exit_code)
