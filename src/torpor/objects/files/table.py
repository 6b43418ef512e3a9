"""The kinds of files, in the order in which a descriptor is tried against them."""

from __future__ import annotations

from torpor.objects.files import (
    epoll,
    eventfd,
    fifo,
    inotify,
    memfd,
    pidfd,
    pipe,
    refused,
    regular,
    signalfd,
    timerfd,
    tty,
)
from torpor.objects.files.model import FileKind
from torpor.objects.files.socket import inet, netlink, unix, unsupported

KINDS: tuple[FileKind, ...] = (
    pipe.KIND,
    epoll.KIND,
    eventfd.KIND,
    signalfd.KIND,
    timerfd.KIND,
    pidfd.KIND,
    memfd.KIND,
    fifo.KIND,
    inotify.KIND,
    unix.KIND,
    inet.KIND,
    tty.KIND,
    netlink.KIND,
    unsupported.KIND,
    regular.KIND,
    refused.KIND,  # whatever is left
)
