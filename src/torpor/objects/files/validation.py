"""Whether a file is still the one that was mapped or open: its size, and of code which build it is.

Kernel view
    The mappings say whose code is executed; an ELF file has a note with its build id near its beginning.
Image
    ``reg_file_entry.build_id``, in words of four bytes, as CRIU has it.  Code without one has ``torpor_mtime_ns`` and
    ``torpor_sum``: of the first 64 KiB, and every so often a page.
Restore
    Another size, another build id, or none any more: refused by the file's name.  A sum is taken only where the file
    was written since.  A file that has grown may be cut instead, also one that is only appended to (``torpor_size``).
Limits
    Data may change as long as its size does not: programs share it.  A file of more than 1 MiB without a build id that
    differs only between the pages that are looked at is not found out; that it was written since is told.
"""

from __future__ import annotations

import os
import stat
import struct

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.images.text import get_text
from torpor.kernel import vm
from torpor.kernel.build_id import find_build_id, read_build_id
from torpor.kernel.procfs.maps import PROT_EXEC, PROT_READ
from torpor.objects.files.model import OpenFile
from torpor.objects.session import DumpContext, RestoreContext, RestoreStage

BUILD_ID = "buildid"
_HINT = "bring the old file back; --file-validation filesize takes this one as it is"
_HEAD = 64 << 10
_WHOLE = 1 << 20
_PAGE = 4096
_N_PAGES = 256
_MASK = (1 << 64) - 1


class Executed:
    """The files of which processes execute code, by the numbers of their inodes, and where they begin in memory.

    The device that a mapping tells may be another than stat's (btrfs).
    """

    def __init__(self, context: DumpContext) -> None:
        self._of: dict[int, dict[int, int]] = {}

    def has(self, file: OpenFile) -> bool:
        """Whether the process in which *file* was met does so of it."""
        process = file.process
        if process.pid not in self._of:
            heads = {vma.inode: vma.start for vma in process.maps if not vma.pgoff and vma.prot & PROT_READ}
            code = {vma.inode for vma in process.maps if vma.prot & PROT_EXEC and vma.is_file}
            self._of[process.pid] = {inode: heads.get(inode, 0) for inode in code}
        return file.stat.st_ino in self._of[process.pid]

    def head(self, file: OpenFile) -> bytes:
        """The first page of the file as the process has it, if it has; to open the file would be seen by watchers."""
        start = self._of[file.process.pid][file.stat.st_ino]
        try:
            return vm.read(file.process.pid, start, _PAGE) if start else b""
        except OSError:
            return b""


class Rewound:
    """The files that will be cut, by device and inode, and to which size."""

    def __init__(self, context: RestoreContext) -> None:
        self.sizes: dict[tuple[int, int], int] = {}


def dump(file: OpenFile, reg: m.reg_file_entry, context: DumpContext) -> None:
    """Say what code it is; nothing of files that are only open."""
    if file.number >= 0 or context.policies.files.file_validation != BUILD_ID or not context.part(Executed).has(file):
        return
    found = find_build_id(context.part(Executed).head(file))
    if found:
        reg.build_id.extend(_words(found))
        return
    try:
        fd = os.open(f"/proc/self/fd/{file.fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        log.warn(f"{file.target} cannot be read ({error.strerror}): it will be known by its size only")
        return
    try:
        found = read_build_id(fd)
        if found:
            reg.build_id.extend(_words(found))
        else:
            reg.torpor_mtime_ns = file.stat.st_mtime_ns & _MASK
            reg.torpor_sum = _sum(fd, file.stat.st_size)
    finally:
        os.close(fd)


def _words(build_id: bytes) -> tuple[int, ...]:
    padded = build_id + bytes(-len(build_id) % 4)
    return struct.unpack(f"<{len(padded) // 4}I", padded)


def _sum(fd: int, size: int) -> int:
    """A sum of all of a small file, of parts of a large one."""
    from zlib import adler32, crc32

    crc, adler = 0, 1
    step = max(size // _N_PAGES & -_PAGE, _PAGE)
    pieces = [(0, _HEAD), *((at, _PAGE) for at in range(_HEAD, size, step))] if size > _WHOLE else [(0, size)]
    for at, length in pieces:
        data = os.pread(fd, length, at)
        crc, adler = crc32(data, crc), adler32(data, adler)
    return crc << 32 | adler


def check(reg: m.reg_file_entry, fd: int, info: os.stat_result, context: RestoreContext) -> None:
    """RestoreError where it is not the file that it was."""
    name = get_text(reg.name)
    if _rewind(reg, fd, info, context) or not reg.HasField("size"):
        return
    if info.st_size != reg.size:
        grown = "; --rewind-files cuts it to that" if info.st_size > reg.size and not _is_code(reg) else ""
        raise RestoreError(
            f"{name} has bad size {info.st_size} (expect {reg.size})", hint=f"bring the file back as it was{grown}"
        )
    if context.policies.files.file_validation == BUILD_ID and _is_code(reg):
        readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _check_code(reg, name, readable, info)
        finally:
            os.close(readable)


def _is_code(reg: m.reg_file_entry) -> bool:
    return bool(reg.build_id) or reg.HasField("torpor_sum")


def _check_code(reg: m.reg_file_entry, name: str, fd: int, info: os.stat_result) -> None:
    if reg.build_id:
        found = read_build_id(fd)
        if not found:
            raise RestoreError(f"{name} has no build ID any more: it is another file than was mapped", hint=_HINT)
        if _words(found) != tuple(reg.build_id):
            raise RestoreError(f"{name} has another build ID than the file that was mapped", hint=_HINT)
        return
    if info.st_mtime_ns & _MASK == reg.torpor_mtime_ns:
        return
    if _sum(fd, info.st_size) != reg.torpor_sum:
        raise RestoreError(f"{name} is another file than was mapped: its contents differ", hint=_HINT)
    if info.st_size > _WHOLE:
        log.warn(f"{name} was written since the dump; what was looked at of it is the same")


def _rewind(reg: m.reg_file_entry, fd: int, info: os.stat_result, context: RestoreContext) -> bool:
    """Have a file that has grown cut to its length at the dump, if that is wanted and it is no code.

    Not before everything else is there: a restore that fails leaves it as it is.
    """
    wanted, name = context.policies.files.rewind_files, get_text(reg.name)
    size = reg.size if reg.HasField("size") else reg.torpor_size if reg.HasField("torpor_size") else info.st_size
    if wanted is None or info.st_size <= size or _is_code(reg) or not stat.S_ISREG(info.st_mode):
        return False
    if reg.flags & os.O_ACCMODE == os.O_RDONLY:
        return False  # nothing that the program wrote
    place = (info.st_dev, info.st_ino)
    rewound = context.part(Rewound).sizes
    if place in rewound:
        if rewound[place] != size:
            raise RestoreError(f"{name} had two sizes, {rewound[place]} and {size}: it cannot be cut to both")
        return True
    if not wanted(name, info.st_size, size):
        return False
    rewound[place] = size
    try:
        writable = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise RestoreError(f"{name} has grown, and cannot be cut: {error.strerror}") from error

    def cut() -> None:
        try:
            os.ftruncate(writable, size)
        except OSError as error:
            raise RestoreError(f"{name} has grown, and cannot be cut: {error.strerror}") from error
        finally:
            os.close(writable)
        log.warn(f"{name} was cut from {info.st_size} bytes to the {size} that it had")

    context.at(RestoreStage.TIDY, cut)
    return True
