"""An eventfd of a kernel before 6.5, whose fdinfo does not say whether it is a semaphore."""

from __future__ import annotations

import os
from typing import cast

import pytest

from torpor.images import messages as m
from torpor.objects.files import eventfd
from torpor.objects.files.model import OpenFile
from torpor.objects.model import DumpProcess
from torpor.objects.outside import Outside
from torpor.objects.session import DumpContext


class _Context:
    def __init__(self) -> None:
        self.outside = Outside()


@pytest.mark.parametrize("kind", [0, os.EFD_SEMAPHORE])
def test_a_semaphore_is_told_from_a_counter(kind: int) -> None:
    fd = os.eventfd(3, kind)
    context = _Context()
    lines = ["pos:\t0", "flags:\t02", "mnt_id:\t15", "eventfd-count:                3"]
    file = OpenFile(cast(DumpProcess, None), 5, fd, "anon_inode:[eventfd]", os.fstat(fd), lines)
    entry = m.file_entry(id=1)
    eventfd.dump(file, entry, cast(DumpContext, context))
    context.outside.close()
    assert (entry.efd.counter, entry.efd.torpor_semaphore) == (3, bool(kind))
    os.close(fd)
