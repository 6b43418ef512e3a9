"""What the machine has once, and tests that run side by side would change under each other."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn_at(path: Path) -> Iterator[None]:
    """One at a time of all test runs is here, the others wait; *path*: a file or directory that stands for it."""
    lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        # A fork that outlives this has it as well.
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)
