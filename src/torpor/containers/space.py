"""Whether there is room for a container's checkpoint, looked at before anything is done.

An engine writes the images into its own storage and then, when the container is gone already, the archive: what
does not fit is found out too late, and lost if the container was started with ``--rm``.  What will be written is
estimated from above, without compression: private and shared memory, what is swapped out, and what lies in the
container's own tmpfs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torpor.base.errors import RefusedError
from torpor.base.ids import Pid
from torpor.kernel.procfs.mountinfo import read_mountinfo

_MEMORY = re.compile(r"^(?:Pss_Anon|Pss_Shmem|Swap):\s+(\d+) kB$", re.M)
#: What else there is of images, and of every process.
_FIXED, _PER_PROCESS = 1 << 20, 64 << 10
#: Memory that is compressed takes some of that; where nothing can be lost, the benefit of the doubt.
_COMPRESSED = 8


@dataclass(frozen=True, slots=True)
class Need:
    """So many bytes on the file system of *place*, for *what*."""

    place: Path
    what: str
    n_bytes: int


def memory_of(pid: int) -> int:
    """Bytes of memory that the images of a container will hold, given its first process."""
    total = _FIXED
    for each in _processes_in(pid):
        with suppress(OSError):
            text = Path(f"/proc/{each}/smaps_rollup").read_text(encoding="ascii")
            total += _PER_PROCESS + sum(int(n_kib) << 10 for n_kib in _MEMORY.findall(text))
    return total + _own_tmpfs(pid)


def _processes_in(pid: int) -> Iterator[int]:
    """All processes in the pid namespace of *pid*."""
    wanted = os.readlink(f"/proc/{pid}/ns/pid")
    for entry in os.listdir("/proc"):
        with suppress(OSError):
            if entry.isdecimal() and os.readlink(f"/proc/{entry}/ns/pid") == wanted:
                yield int(entry)


def _own_tmpfs(pid: int) -> int:
    """Bytes in file systems of the kind tmpfs that are mounted in the container and not here."""
    total = 0
    ours = {mount.device for mount in read_mountinfo("self")}
    for mount in {mount.device: mount for mount in read_mountinfo(Pid(pid)) if mount.fstype == "tmpfs"}.values():
        if mount.device not in ours:
            with suppress(OSError):
                room = os.statvfs(f"/proc/{pid}/root{mount.point}")
                total += (room.f_blocks - room.f_bfree) * room.f_frsize
    return total


def archive_size(n_bytes: int, *, is_compressed: bool, is_lost: bool) -> int:
    """So much room an archive of that much must find; *is_lost* says that the container is, where there is less."""
    return n_bytes // _COMPRESSED if is_compressed and not is_lost else n_bytes


def check(label: str, needs: list[Need], *, is_lost: bool) -> None:
    """RefusedError where there is less room than is needed, for all that goes to one file system together."""
    by_device: dict[int, list[Need]] = {}
    for need in needs:
        by_device.setdefault(os.stat(need.place).st_dev, []).append(need)
    for together in by_device.values():
        room = os.statvfs(together[0].place)
        free, wanted = room.f_bavail * room.f_frsize, sum(need.n_bytes for need in together)
        if free < wanted:
            what = " and ".join(f"{need.what} ({need.place})" for need in together)
            loss = "; it was started with --rm, and would be lost with its checkpoint" if is_lost else ""
            raise RefusedError(
                f"{label} needs up to {_amount(wanted)} for {what}, where {_amount(free)} are free{loss}",
                hint="free some space, or name another place; the container runs on",
            )


def _amount(n_bytes: int) -> str:
    return f"{n_bytes / (1 << 20):.1f} MiB" if n_bytes >= 1 << 20 else f"{n_bytes / (1 << 10):.0f} KiB"
