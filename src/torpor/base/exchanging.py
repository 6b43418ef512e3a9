"""Small files that are exchanged as a whole: nothing of an earlier one is lost before its successor is complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from torpor.base.fds import OwnedFd

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY


@contextmanager
def exchanged(path: Path, content: bytes, mode: int = 0o666) -> Iterator[Path]:
    """*content* is written beside *path* (into what is yielded), and takes its place, on the disk, after the block.

    After any error, of ours or in the block, an earlier file is as it was, and nothing lies beside it.  *mode* is that
    of the new file, less the umask.  One process at a time.  OSError.
    """
    beside = path.with_name(f".{path.name}.new")
    with suppress(FileNotFoundError):
        beside.unlink()  # of somebody who was killed; or a stranger's link, which is not followed
    fd = OwnedFd(os.open(beside, _NEW, mode))
    try:
        with fd:
            left = memoryview(content)
            while left:
                left = left[os.write(fd.fileno(), left) :]
            yield beside
            os.fsync(fd.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    with OwnedFd(os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as above:
        os.fsync(above.fileno())


def exchange(path: Path, content: bytes, mode: int = 0o666) -> None:
    """The same with nothing in between."""
    with exchanged(path, content, mode):
        pass
