"""A semaphore is told from a counter, and counts on as if nothing had been."""

import os

import pytest

from torpor.kernel.eventfd import is_semaphore


@pytest.mark.parametrize("flags", [0, os.EFD_NONBLOCK])
@pytest.mark.parametrize("count", [0, 1, 2, 77, (1 << 64) - 2])
def test_semaphores_and_counters(count: int, flags: int) -> None:
    for kind in (0, os.EFD_SEMAPHORE):
        fd = os.eventfd(0, kind | flags)
        if count:
            os.eventfd_write(fd, count)
        assert is_semaphore(fd, count) == bool(kind)
        with open(f"/proc/self/fdinfo/{fd}") as file:
            assert f"eventfd-count: {count:16x}\n" in file
        os.close(fd)
