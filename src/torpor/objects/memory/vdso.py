"""The vdso and its data mappings ([vvar], [vvar_vclock], ...): any number of them.

Kernel view
    Mappings by name in maps.  The data are the running kernel's and are not stored; the code is, so that a different
    vdso can be recognised.  Threads are not stopped in the midst of it (``tracee/vdso.py``).
Image
    ``vma_entry`` with the VDSO or VVAR status; the code's pages in the page map.
Restore
    Where this kernel's code is the image's, byte for byte, and has room: the puppet's own mappings, moved by mremap to
    where the image had them.  Else the program's pointers into the image's code must stay good:

    - the code is kept as ordinary memory, and each function's entry is made a jump to this kernel's function of that
      name, or the system call where it has none (-ENOSYS for a function that is unknown); getrandom is always the
      system call, for the state that a program keeps for it has a form of the kernel that made it;
    - the data become ordinary zeroes, from which the code that is kept, where a thread stands in the midst of it,
      takes that there is no clock to be read and makes the system call;
    - this kernel's mappings lie elsewhere.

    A thread that stands among the instructions that are written over goes on in a second copy of the code.  Nothing of
    this needs a mark: for the next checkpoint, what was kept is ordinary memory whose jumps lead into the vdso, which
    comes back to its place, or is kept in its turn.
Limits
    Of a thread that is stopped in it all the same (by job control, or within a signal's handler, or by another engine)
    one time may be wrong: by how long it has slept, or 0 for coarse clocks of another kernel's vdso.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.ids import Pid
from torpor.base.records import dataclass, field
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel import elf, vm
from torpor.kernel.arch import nr, trampoline, vdso
from torpor.kernel.procfs.maps import PROT_EXEC, PROT_READ, PROT_WRITE
from torpor.kernel.uapi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_GROWSDOWN, MAP_PRIVATE
from torpor.objects.arch import core as image
from torpor.objects.memory.areas import ANON_PRIVATE, AREA_REGULAR, AREA_VDSO, AREA_VVAR
from torpor.objects.model import RestoreThread
from torpor.tracee.batch import Batch
from torpor.tracee.stub import ParkedVdso, find_area

_MREMAP_MAYMOVE_FIXED = 3
_NO_FD = (1 << 64) - 1
#: Those of all kernels have 1 to 3 pages.
_MAX_SIZE = 1 << 18
#: What a stack may grow into.
_STACK_ROOM = 128 << 20
_Range = tuple[int, int]


@dataclass(slots=True)
class Copy:
    """The data's place and the code of the image's vdso once more, for threads to go on in."""

    start: int
    end: int
    code_at: int
    code: bytes


@dataclass(slots=True)
class Plan:
    """What becomes of the vdso in one address space.  ``place``: where this kernel's code will lie; None: nowhere."""

    moves: list[tuple[int, int, int]] = field(default_factory=list)
    unmapped: list[_Range] = field(default_factory=list)
    place: _Range | None = None
    code_at: int = 0
    #: What is written over the image's code.
    code: bytes = b""
    copy: Copy | None = None


def join_vvar(mm: m.mm_entry) -> None:
    """Make one entry of the neighbours [vvar], [vvar_vclock], ...: CRIU knows one, and has it end at the vdso."""
    for index in range(len(mm.vmas) - 1, 0, -1):
        entry, before = mm.vmas[index], mm.vmas[index - 1]
        if entry.status & before.status & AREA_VVAR and before.end == entry.start:
            before.end = entry.end
            del mm.vmas[index]


def entries_of(mm: m.mm_entry) -> list[m.vma_entry]:
    """The image's vdso and vvar mappings."""
    return [entry for entry in mm.vmas if entry.status & (AREA_VDSO | AREA_VVAR)]


def plan(
    mm: m.mm_entry,
    parked: ParkedVdso,
    pid: Pid,
    read: Callable[[int, int], bytes | None],
    threads: Iterable[RestoreThread],
) -> Plan:
    """Decide, with the puppet *pid* to look at; entries of mappings that become ordinary memory are changed.

    *read* gives the image's contents from one address to another, None where it has not all of them.  RestoreError,
    ImageError.
    """
    entries = entries_of(mm)
    old = next((entry for entry in entries if entry.status & AREA_VDSO), None)
    if old is None:
        # The task has unmapped its own, or its kernel had none.
        _make_ordinary(entries)
        return _unmapped(parked)
    if old.end - old.start > _MAX_SIZE:
        raise ImageError(f"a vdso of {old.end - old.start} bytes at {old.start:#x}")
    code = read(old.start, old.end)
    ours = parked.vdso
    our_code = vm.read(pid, ours.start, ours.length) if ours is not None else b""
    if ours is not None and code in (None, our_code):
        moved = _moved(parked, old.start - ours.start)
        if all(any(entry.start <= to and to + size <= entry.end for entry in entries) for _, size, to in moved.moves):
            return moved
    if code is None:
        raise RestoreError(
            "this kernel's vdso does not fit where the image had its own, whose code is not in the image"
        )
    _make_ordinary(entries)
    made = _unmapped(parked)
    taken = [(each.start - (_STACK_ROOM if each.flags & MAP_GROWSDOWN else 0), each.end) for each in mm.vmas]
    taken.append(parked.room)
    if ours is not None:
        start = find_area(taken, parked.length)
        taken.append((start, start + parked.length))
        made = _moved(parked, start - parked.mappings[0].start)
    made.code_at = old.start
    made.code, written = _patch(code, our_code, made.place[0] if made.place else 0)
    log.info(f"the vdso at {old.start:#x} is another kernel's: {len(written)} functions lead to this one's")
    _keep_threads(made, entries, code, written, threads, taken)
    return made


def write(made: Plan, pid: Pid) -> None:
    """Write over the image's code, while it is writable."""
    if made.code:
        vm.write(pid, made.code_at, made.code)


def restore(made: Plan, batch: Batch) -> None:
    """Move or unmap this kernel's mappings."""
    for start, length in made.unmapped:
        batch.call(nr.munmap, start, length)
    for start, length, to in made.moves:
        batch.call(nr.mremap, start, length, length, _MREMAP_MAYMOVE_FIXED, to)
    copy = made.copy
    if copy is not None:
        length, flags = copy.end - copy.start, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
        batch.call(nr.mmap, copy.start, length, PROT_READ | PROT_WRITE, flags, _NO_FD, 0)


def write_copy(made: Plan, pid: Pid, batch: Batch) -> None:
    """Fill in the second copy, which ``restore`` has made room for."""
    if made.copy is not None:
        vm.write(pid, made.copy.code_at, made.copy.code)
        batch.call(nr.mprotect, made.copy.start, made.copy.end - made.copy.start, PROT_READ | PROT_EXEC)


def _make_ordinary(entries: Sequence[m.vma_entry]) -> None:
    for entry in entries:
        entry.status = AREA_REGULAR | ANON_PRIVATE
        entry.flags = MAP_PRIVATE | MAP_ANONYMOUS
        # What is written over its entries is no landing pad, where such are asked for (PROT_BTI).
        entry.prot &= PROT_READ | PROT_WRITE | PROT_EXEC
        entry.shmid = entry.pgoff = 0
        entry.ClearField("madv")
        entry.ClearField("torpor_sealed")


def _unmapped(parked: ParkedVdso) -> Plan:
    return Plan(unmapped=[(vma.start, vma.length) for vma in parked.mappings])


def _moved(parked: ParkedVdso, delta: int) -> Plan:
    assert parked.vdso is not None
    moves = [(vma.start, vma.length, vma.start + delta) for vma in parked.mappings]
    return Plan(moves, place=(parked.vdso.start + delta, parked.vdso.length))


def _patch(code: bytes, ours: bytes, our_place: int) -> tuple[bytes, list[_Range]]:
    """The image's *code* with its entries written over, and the places (first, behind) that were."""
    try:
        functions = elf.read_functions(code)
    except elf.ElfError as error:
        raise ImageError(f"the image's vdso: {error}") from error
    here = elf.read_functions(ours) if ours else {}
    patched = bytearray(code)
    written: dict[int, int] = {}
    for name, symbol in sorted(functions.items(), key=lambda each: (each[1].offset, each[0])):
        if symbol.offset in written:
            continue
        plain = name.removeprefix(vdso.PREFIX)
        target = here.get(name) or here.get(plain) or here.get(vdso.PREFIX + plain)
        if target is not None and plain != "getrandom":
            instead = trampoline.jump(our_place + target.offset)
        elif name in vdso.WITHOUT_DATA:
            continue
        else:
            instead = trampoline.SYSTEM_CALLS.get(plain, trampoline.NO_SYSTEM_CALL)
        end = symbol.offset + len(instead)
        if symbol.size < len(instead) or any(
            start < end and symbol.offset < behind for start, behind in written.items()
        ):
            raise RestoreError(f"the image's vdso leaves no room to redirect {name}")
        patched[symbol.offset : end] = instead
        written[symbol.offset] = end
    return bytes(patched), list(written.items())


def _keep_threads(
    made: Plan,
    entries: Sequence[m.vma_entry],
    code: bytes,
    written: Sequence[_Range],
    threads: Iterable[RestoreThread],
    taken: Sequence[_Range],
) -> None:
    """Have threads whose next instruction is written over go on in a copy."""
    for thread in threads:
        at = image.ip_of(thread.core) - made.code_at
        if not any(start < at < end for start, end in written):
            continue
        if made.copy is None:
            low = min(entry.start for entry in entries)
            length = made.code_at + len(code) - low
            if length > _MAX_SIZE:
                raise ImageError("the vdso and its data lie too far apart")
            start = find_area(taken, length)
            made.copy = Copy(start, start + length, start + made.code_at - low, code)
        image.set_ip(thread.core, made.copy.code_at + at)
