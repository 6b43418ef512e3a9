"""``/proc/PID/maps`` and the VmFlags of ``/proc/PID/smaps``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from torpor.base.ids import Pid
from torpor.base.records import dataclass
from torpor.kernel.procfs.small import iter_pieces, read_small
from torpor.kernel.vm import PAGE_SIZE

PROT_READ = 1
PROT_WRITE = 2
PROT_EXEC = 4


@dataclass(slots=True)
class Vma:
    """One mapping.

    ``name`` is the raw text of the last column; ``flags`` the two-letter VmFlags, empty if not asked for;
    ``page_size`` is that of huge pages where such are mapped; ``protection_key`` is 0 without one.
    """

    start: int
    end: int
    prot: int
    shared: bool
    pgoff: int
    device: int
    inode: int
    name: str
    flags: frozenset[str] = frozenset()
    page_size: int = PAGE_SIZE
    protection_key: int = 0

    @property
    def length(self) -> int:
        """How long the mapping is, in bytes."""
        return self.end - self.start

    @property
    def is_file(self) -> bool:
        """Whether a file (of any kind, shared memory included) is mapped."""
        return self.inode != 0 or self.device != 0

    @property
    def is_vdso(self) -> bool:
        """The kernel's code page."""
        return self.name == "[vdso]"

    @property
    def is_vvar(self) -> bool:
        """One of any number of the kernel's data mappings beside the vdso (vvar, vvar_vclock, ...)."""
        return self.name.startswith("[vvar")

    @property
    def is_aio_ring(self) -> bool:
        """A ring of asynchronous I/O, from io_setup(2)."""
        return self.shared and self.name == "/[aio] (deleted)" and not self.device >> 8 & 0xFFF

    @property
    def is_vsyscall(self) -> bool:
        """The legacy page at a fixed address outside of the task's own memory."""
        return self.name == "[vsyscall]"


def parse_line(line: str) -> Vma:
    """One line of maps."""
    span, perms, pgoff, file = line.split(" ", 3)
    start, _, end = span.partition("-")
    prot, is_shared = _permissions(perms)
    device, inode, name = _file(file)
    return Vma(int(start, 16), int(end, 16), prot, is_shared, int(pgoff, 16), device, inode, name)


@lru_cache(maxsize=32)
def _permissions(perms: str) -> tuple[int, bool]:
    prot = (perms[0] == "r") * PROT_READ | (perms[1] == "w") * PROT_WRITE | (perms[2] == "x") * PROT_EXEC
    return prot, perms[3] == "s"


@lru_cache(maxsize=256)
def _file(text: str) -> tuple[int, int, str]:
    """Device, inode and name: most mappings have none, or share them with their neighbours."""
    device, inode, *name = text.split(" ", 2)
    major, _, minor = device.partition(":")
    return makedev(int(major, 16), int(minor, 16)), int(inode), name[0].lstrip(" ") if name else ""


def makedev(major: int, minor: int) -> int:
    """``dev_t`` as stat(2) gives it."""
    return (minor & 0xFF) | ((major & 0xFFF) << 8) | ((minor & ~0xFF) << 12) | ((major & ~0xFFF) << 32)


def parse_maps(text: str) -> list[Vma]:
    """All of maps, in address order."""
    return [parse_line(line) for line in text.split("\n") if line]


def parse_smaps(text: str) -> Iterator[Vma]:
    """All of smaps: the mappings with their flags, which end each mapping's lines."""
    header = text[: text.find("\n")]
    body = text
    has_keys = "\nProtectionKey:" in text
    for part in text.split("\nVmFlags: ")[1:]:
        flags, _, following = part.partition("\n")
        vma = parse_line(header)
        vma.flags = _flag_set(flags)
        if "ht" in vma.flags:
            vma.page_size = _kernel_page_size(body)
        if has_keys:
            words = body.partition("\nProtectionKey:")[2].split(None, 1)
            vma.protection_key = int(words[0]) if words else 0
        yield vma
        header = following[: following.find("\n")]
        body = following


@lru_cache(maxsize=256)
def _flag_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _kernel_page_size(text: str) -> int:
    at = text.index("KernelPageSize:")
    return int(text[at : text.index("kB", at)].split()[1]) << 10


def read_maps(pid: Pid) -> list[Vma]:
    """The mappings without flags (cheap)."""
    return parse_maps(read_small(f"/proc/{pid}/maps"))


def find_vdso(pid: Pid) -> range:
    """Where the vdso's code lies, also when it has been moved; empty if there is none."""
    before, found, _ = read_small(f"/proc/{pid}/maps").partition(" [vdso]\n")
    if not found:
        return range(0)
    start, _, end = before.rpartition("\n")[2].partition(" ")[0].partition("-")
    return range(int(start, 16), int(end, 16))


def count_maps(pid: Pid) -> int:
    """How many mappings there are."""
    return read_small(f"/proc/{pid}/maps").count("\n")


def read_smaps(pid: Pid) -> list[Vma]:
    """The mappings with flags (the kernel walks all page tables for it)."""
    return [vma for text in _iter_smaps(pid) for vma in parse_smaps(text)]


def _iter_smaps(pid: Pid) -> Iterator[str]:
    """The text, some mappings at a time: of thousands it has megabytes."""
    return iter_pieces(f"/proc/{pid}/smaps", b"VmFlags:")


def read_flags(pid: Pid) -> list[tuple[int, int, frozenset[str]]]:
    """The mappings as (start, end, VmFlags): in half the time of ``read_smaps`` where there are thousands."""
    found: list[tuple[int, int, frozenset[str]]] = []
    for text in _iter_smaps(pid):
        header, *parts = text.split("\nVmFlags: ")
        for part in parts:
            flags, _, following = part.partition("\n")
            start, _, end = header[: header.index(" ")].partition("-")
            found.append((int(start, 16), int(end, 16), _flag_set(flags)))
            header = following
    return found


def read_populated(pid: Pid) -> list[tuple[int, int]]:
    """The mappings, as (start, end), of which something is present or swapped; of huge pages smaps counts none."""
    found: list[tuple[int, int]] = []
    start, end, n_kilobytes = 0, 0, 0
    for line in (line for text in _iter_smaps(pid) for line in text.split("\n")):
        if line.startswith(("Rss:", "Swap:")):
            n_kilobytes += int(line.split()[1])
        elif line.startswith("VmFlags:"):
            if n_kilobytes or " ht" in line:
                found.append((start, end))
            n_kilobytes = 0
        elif line and line[0] in "0123456789abcdef":
            start, end = (int(word, 16) for word in line.partition(" ")[0].split("-"))
    return found


def take_flags(maps: list[Vma], earlier: list[Vma]) -> bool:
    """Give each of *maps*, read without flags, those that it had *earlier*; False unless all were there then.

    Of one that has grown they are the same.
    """
    by_start = {vma.start: vma for vma in earlier}
    by_end = {vma.end: vma for vma in earlier}
    for vma in maps:
        for before in (by_start.get(vma.start), by_end.get(vma.end)):
            if before is not None and _is_alike(vma, before):
                vma.flags, vma.page_size, vma.protection_key = before.flags, before.page_size, before.protection_key
                break
        else:
            return False
    return True


def _is_alike(one: Vma, other: Vma) -> bool:
    return (one.prot, one.shared, one.device, one.inode, one.name) == (
        other.prot, other.shared, other.device, other.inode, other.name,
    )  # fmt: skip
