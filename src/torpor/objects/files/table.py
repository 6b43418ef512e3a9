"""The kinds of files, in the order in which a descriptor is tried against them."""

from __future__ import annotations

from torpor.objects.files import eventfd, pidfd, pipe, regular, signalfd, timerfd
from torpor.objects.files.model import FileKind

KINDS: tuple[FileKind, ...] = (
    pipe.KIND,
    eventfd.KIND,
    signalfd.KIND,
    timerfd.KIND,
    pidfd.KIND,
    regular.KIND,
)
