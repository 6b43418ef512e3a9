"""What an error means that a system call or Python itself raised: one of ours, by the reason and what helps.

At the edge of the engine and of the commands.  What is not known here is a bug of ours, and is told as one.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from torpor.base.errors import KernelError, NotPermittedError, TargetGoneError, TorporError
from torpor.base.typed import TypeVar, cast

_NO_MEMORY = "there is not enough memory"
_HINTS = {
    errno.ENOMEM: (_NO_MEMORY, "free some, or raise the limit of this control group or of ulimit -v"),
    errno.EMFILE: ("torpor itself may not open more files", "raise the limit: ulimit -n"),
    errno.ENFILE: ("this machine may not open more files", "raise fs.file-max"),
    errno.ENOSPC: ("no space is left", "free some, or choose another place"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or choose another place"),
    errno.EROFS: ("the file system is mounted read-only", "choose another place"),
}
_NO_SUCH_CALL = "this kernel, or a sandbox that torpor runs in (a seccomp filter), has no such system call"
_GONE = (errno.ENOENT, errno.ESRCH)

FunctionT = TypeVar("FunctionT", bound=Callable[..., object])


def explain(error: BaseException) -> TorporError | None:
    """The error of ours that says what *error* means (itself, if it does); None for what nobody foresaw."""
    if isinstance(error, KernelError) and error.errno in (errno.ESRCH, errno.ENOSYS, *_HINTS):
        return _noted(_of_number(error.errno, str(error), ""), error)
    if isinstance(error, TorporError):
        return error
    if isinstance(error, MemoryError):
        return TorporError(_NO_MEMORY, hint=_HINTS[errno.ENOMEM][1])
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        # EAGAIN, of which Python does not say why.
        return TorporError("no thread can be started", hint="raise the limit: ulimit -u, ulimit -v, or pids.max")
    if isinstance(error, BufferError):
        # Raised while a buffer was given back, on the way up from something else, which is what counts.
        return explain(error.__context__) if error.__context__ is not None else None
    if isinstance(error, OSError):
        return _of_number(error.errno or 0, error.strerror or str(error), _name(error))
    return None


def explained(function: FunctionT) -> FunctionT:
    """*function*, which raises what its errors mean."""

    def call(*words: object, **named: object) -> object:
        try:
            return function(*words, **named)
        except Exception as error:
            known = explain(error)
            if known is None or known is error:
                raise
            raise known from error

    call.__name__, call.__doc__ = function.__name__, function.__doc__
    return cast("FunctionT", call)


def _name(error: OSError) -> str:
    name = error.filename
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name) if name is not None else ""


def _of_number(number: int, text: str, name: str) -> TorporError:
    process = name.removeprefix("/proc/").partition("/")[0] if name.startswith("/proc/") else ""
    if number == errno.ESRCH or (number in _GONE and process.isdigit()):
        who = f"pid {process}" if process.isdigit() else "a process"
        return TargetGoneError(f"{who} has ended meanwhile")
    place = f"{name}: " if name else ""
    if number in _HINTS:
        why, hint = _HINTS[number]
        return TorporError(f"{place}{why}", hint=hint)
    if number == errno.ENOSYS:
        return TorporError(f"{place}{text}", hint=_NO_SUCH_CALL)
    if number in (errno.EPERM, errno.EACCES) and process:
        return NotPermittedError(f"{place}{text}", hint="run it as root")
    return TorporError(f"{place}{text}")


def _noted(made: TorporError, error: BaseException) -> TorporError:
    for note in getattr(error, "__notes__", ()):
        made.add_note(note)
    return made
