"""Threads that have left what their process's threads share."""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from torpor.base.errors import RefusedError
from torpor.base.ids import Pid
from torpor.engine.dump.ids import check_threads

CLONE_FS, CLONE_FILES = 0x200, 0x400


@contextmanager
def thread(flags: int, umask: int | None = None) -> Iterator[Pid]:
    """A thread of ours that has unshared that, and then set its *umask*."""
    ready, over = threading.Event(), threading.Event()

    def body() -> None:
        assert ctypes.CDLL(None).unshare(flags) == 0
        if umask is not None:
            os.umask(umask)
        ready.set()
        over.wait()

    other = threading.Thread(target=body)
    other.start()
    try:
        ready.wait()
        assert other.native_id is not None
        yield Pid(other.native_id)
    finally:
        over.set()
        other.join()


@pytest.mark.parametrize(("flags", "what"), [(CLONE_FS, "a working directory"), (CLONE_FILES, "a descriptor table")])
def test_it_is_named(flags: int, what: str) -> None:
    me = Pid(os.getpid())
    with thread(0) as like_us, thread(flags, 0o123 if flags == CLONE_FS else None) as apart_from_us:
        check_threads("pid 7 (a)", me, [me, like_us])
        with pytest.raises(RefusedError, match=rf"pid 7 \(a\): its thread {apart_from_us} has {what}.* of its own"):
            check_threads("pid 7 (a)", me, [me, like_us, apart_from_us])


def test_a_directory_of_its_own_that_is_the_same_may_be_shared() -> None:
    me = Pid(os.getpid())
    with thread(CLONE_FS) as other:
        check_threads("pid 7 (a)", me, [me, other])


def test_one_that_ends_meanwhile_has_nothing() -> None:
    me = Pid(os.getpid())
    with thread(0) as gone:
        pass
    check_threads("pid 7 (a)", me, [me, gone])
