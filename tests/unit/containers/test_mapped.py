"""Files that somebody writes to by a mapping."""

import mmap
import os
from pathlib import Path

from torpor.containers.mapped import Mapped


def test_a_mapping_that_has_gone_is_remembered(tmp_path: Path) -> None:
    found = Mapped()
    paths = [tmp_path / name for name in ("written", "private", "read")]
    for path in paths:
        path.write_bytes(bytes(mmap.PAGESIZE))
    both = mmap.PROT_READ | mmap.PROT_WRITE
    kinds = [(mmap.MAP_SHARED, both), (mmap.MAP_PRIVATE, both), (mmap.MAP_SHARED, mmap.PROT_READ)]
    opened = [os.open(path, os.O_RDWR) for path in paths]
    maps = [mmap.mmap(fd, mmap.PAGESIZE, kind, prot) for fd, (kind, prot) in zip(opened, kinds, strict=True)]
    found.look(os.getpid(), f"{tmp_path}/")
    assert found.paths == {str(paths[0])}
    for each in maps:
        each.close()
    for fd in opened:
        os.close(fd)
    found.look(os.getpid(), f"{tmp_path}/")
    assert found.paths == {str(paths[0])}


def test_only_what_is_below_the_directory_counts(tmp_path: Path) -> None:
    found = Mapped()
    with (tmp_path / "file").open("w+b") as file:
        file.truncate(mmap.PAGESIZE)
        with mmap.mmap(file.fileno(), mmap.PAGESIZE):
            found.look(os.getpid(), f"{tmp_path}/other/")
    assert found.paths == set()


def test_a_write_to_a_page_that_has_been_written_to_changes_no_time() -> None:
    """What all this is for: of the kernel's file of memory, as /dev/shm is one."""
    path = Path("/dev/shm", f"torpor-{os.getpid()}-mapped")
    try:
        with path.open("w+b") as file:
            file.truncate(mmap.PAGESIZE)
            with mmap.mmap(file.fileno(), mmap.PAGESIZE) as memory:
                memory[0] = 1
                # As if that had been long ago: the clock of files need not have gone on.
                os.utime(path, ns=(0, 0))
                memory[0] = 2
                assert path.stat().st_mtime_ns == 0
    finally:
        path.unlink(missing_ok=True)
