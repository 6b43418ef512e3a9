"""Every error torpor raises on purpose, with its exit code and what the user can do.

Each class says when it is raised.  Anything else that escapes is a bug and is reported as such by the commands.
Context (which task, which descriptor, which image) is added on the way up with ``add_note``.
"""

from __future__ import annotations

#: What helps where an image asks for more than it gets without.
TRUST_IT = "torpor restore --trust allows it, for a checkpoint that you know"


class TorporError(Exception):
    """Base of all.  ``hint`` says what to do; ``exit_code`` is what the commands exit with."""

    exit_code = 1

    def __init__(self, text: str, *, hint: str | None = None) -> None:
        super().__init__(text)
        self.hint = hint

    def describe(self) -> str:
        """One line: the text, its notes, and the hint."""
        parts = [str(self), *getattr(self, "__notes__", ())]
        text = "; ".join(parts)
        return f"{text} ({self.hint})" if self.hint else text


class UsageError(TorporError):
    """The caller's words are wrong: an unknown option, a pid that is no number, two options that exclude each other."""

    exit_code = 2


class RefusedError(TorporError):
    """The target has something that cannot be carried.  Raised before anything is frozen wherever that can be known."""


class PassingError(RefusedError):
    """What cannot be carried comes and goes, as a request does that is being answered: it may be gone in a moment."""


class TargetGoneError(TorporError):
    """The task died (or was never there).  For a tracee that is a normal outcome, not a bug."""


class NotPermittedError(TorporError):
    """A privilege is missing; the hint names it."""


class KernelError(TorporError):
    """A system call failed in a way that nobody above could have known; carries the call's name and its errno."""

    def __init__(self, call: str, errno: int, *, hint: str | None = None) -> None:
        import os

        super().__init__(f"{call}: {os.strerror(errno)} (errno {errno})", hint=hint)
        self.call = call
        self.errno = errno


class RestoreError(TorporError):
    """The images are sound but this machine cannot rebuild what they say: a pid is taken, a file is missing."""


class ActionScriptError(TorporError):
    """A hook (action script, RPC notification) said no."""


class MigrationError(TorporError):
    """A migration failed: the other host is not reached, refuses, or fails.  What was to be moved runs on here."""


class UnknownEndError(MigrationError):
    """A migration lost its link just when one side had given up and the other was to go on: nobody knows whether it
    has.  Nothing runs here; the hint says where the images are.
    """

    exit_code = 4


class JobError(TorporError):
    """A job by that name does not exist, or already does."""


class AmbiguousNameError(TorporError):
    """A name means several things (a job and a container, containers of two engines); the hint says how to pick one."""

    exit_code = 3


class EngineError(TorporError):
    """A container engine's own command failed, or there is no such engine here; the text is what it said."""
