"""Errors of the system are told as what they mean; what nobody foresaw is not made to look like anything else."""

import errno
import mmap

import pytest

from torpor.base.errors import KernelError, RefusedError, TargetGoneError, TorporError
from torpor.base.explain import explain, explained
from torpor.images.errors import StoreError


def _error(number: int, name: str | None = None) -> OSError:
    return OSError(number, "text", name)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ProcessLookupError(errno.ESRCH, "No such process"), TargetGoneError, "a process has ended meanwhile"),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "/proc/17/maps"),
            TargetGoneError,
            "pid 17 has ended meanwhile",
        ),
        (ProcessLookupError(errno.ESRCH, "No such process", "/proc/17/fd/3"), TargetGoneError, "pid 17 has ended"),
        (KernelError("ptrace", errno.ESRCH), TargetGoneError, "a process has ended"),
        (MemoryError(), TorporError, "not enough memory"),
        (RuntimeError("can't start new thread"), TorporError, "no thread can be started"),
        (_error(errno.ENOMEM), TorporError, "not enough memory"),
        (_error(errno.EMFILE, "/some/file"), TorporError, "torpor itself may not open more files"),
        (_error(errno.ENFILE), TorporError, "this machine may not open more files"),
        (_error(errno.ENOSPC, "/images/pages-1.img"), TorporError, "/images/pages-1.img: no space is left"),
        (_error(errno.EROFS), TorporError, "read-only"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/etc/nothing"), TorporError, "/etc/nothing"),
    ],
)
def test_what_it_means(error: BaseException, kind: type[TorporError], text: str) -> None:
    found = explain(error)
    assert type(found) is kind and text in str(found)
    assert "Errno" not in found.describe()


def test_one_of_ours_is_itself() -> None:
    error = RefusedError("no")
    assert explain(error) is error


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), ValueError("x"), RuntimeError("x"), AssertionError(), AttributeError("x"), RecursionError()],
)
def test_a_bug_is_a_bug(error: Exception) -> None:
    assert explain(error) is None


def test_a_buffer_that_cannot_be_given_back_does_not_hide_why() -> None:
    with pytest.raises(BufferError) as caught:
        with mmap.mmap(-1, 4096) as memory:
            view = memoryview(memory)
            raise StoreError("pages-1.img: no space left on device")
    assert str(explain(caught.value)) == "pages-1.img: no space left on device"
    view.release()


def test_a_function_raises_what_its_errors_mean() -> None:
    @explained
    def fail(error: BaseException) -> None:
        """Fail."""
        raise error

    with pytest.raises(TargetGoneError):
        fail(ProcessLookupError(errno.ESRCH, "x"))
    with pytest.raises(KeyError):
        fail(KeyError("x"))
    assert (fail.__name__, fail.__doc__) == ("fail", "Fail.")
