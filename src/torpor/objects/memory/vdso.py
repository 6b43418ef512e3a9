"""The vdso and its data mappings ([vvar], [vvar_vclock], ...): any number of them.

Kernel view
    Mappings by name in maps.  The data are the running kernel's and are not stored; the code is, so that a different
    vdso can be recognised.  Threads are not stopped in the midst of it (``tracee/vdso.py``).
    In a time namespace the first page of the data has its offsets (timens_setup_vdso_data in the kernel), which are
    added after the last look at all else: where a thread is stopped in the midst of the code nevertheless, it copies
    that page for us.
Image
    ``vma_entry`` with the VDSO or VVAR status; the code's pages in the page map; ``torpor_vdso_offsets``, that page.
Restore
    Where this kernel's code is the image's, byte for byte, and has room: the puppet's own mappings, moved by mremap to
    where the image had them.  Else, or where a thread stands in the midst of it that would add other offsets than those
    of its time, the program's pointers into the image's code must stay good:

    - the code is kept as ordinary memory, and each function's entry is made a jump to this kernel's function of that
      name, or the system call where it has none (-ENOSYS for a function that is unknown); getrandom is always the
      system call, for the state that a program keeps for it has a form of the kernel that made it;
    - the data become ordinary zeroes, but for the offsets that the image has: from them the code that is kept, where a
      thread stands in the midst of it, takes that there is no clock to be read and makes the system call; or, where it
      has read the clock, it comes to the time of the checkpoint;
    - this kernel's mappings lie elsewhere.

    A thread that stands among the instructions that are written over goes on in a second copy of the code.  Nothing of
    this needs a mark: for the next checkpoint, what was kept is ordinary memory whose jumps lead into the vdso, which
    comes back to its place, or is kept in its turn.
Limits
    Of a thread that a signal's handler has taken from the midst of it, or whose images another engine made, one time
    may be wrong, by how long it has slept; and coarse clocks may be 0 once for a thread that is stopped there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.ids import Pid
from torpor.base.records import dataclass, field
from torpor.base.typed import TYPE_CHECKING
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel import elf, vm
from torpor.kernel.arch import nr, trampoline, vdso
from torpor.kernel.procfs.maps import PROT_EXEC, PROT_READ, PROT_WRITE
from torpor.kernel.uapi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_GROWSDOWN, MAP_PRIVATE
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.arch import core as image
from torpor.objects.memory.areas import ANON_PRIVATE, AREA_REGULAR, AREA_VDSO, AREA_VVAR
from torpor.objects.model import DumpProcess, RestoreThread
from torpor.tracee.batch import Batch
from torpor.tracee.borrow import write_forced
from torpor.tracee.remote import Runner
from torpor.tracee.stub import ParkedVdso, find_area

if TYPE_CHECKING:
    from torpor.kernel.arch.regs import UserRegs

_MREMAP_MAYMOVE_FIXED = 3
_NO_FD = (1 << 64) - 1
#: Those of all kernels have 1 to 3 pages.
_MAX_SIZE = 1 << 18
#: By which a page says that it has offsets, and that the clocks are in another: ``seq`` and ``clock_mode``.
_HAS_OFFSETS = struct.pack("=Ii", 1, 0x7FFFFFFF)
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
    #: What is written over the data's first page.
    offsets_at: int = 0
    offsets: bytes = b""


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


def keep_offsets(process: DumpProcess, runner: Runner, everyone: Iterable[UserRegs]) -> None:
    """Have *runner*'s thread, of a stopped *process*, copy the offsets if a thread with such registers needs them."""
    code = next((range(vma.start, vma.end) for vma in reversed(process.maps) if vma.is_vdso), range(0))
    if not any(regs.ip in code and not regs.in_syscall for regs in everyone):
        return
    data = next((vma for vma in process.maps if vma.is_vvar), None)
    if data is None:
        return
    # Nobody else can read them, and this call takes what it writes from where it runs.
    batch = Batch()
    page = batch.out(PAGE_SIZE)
    here, there = batch.pack("QQ", data.start, PAGE_SIZE), batch.pack("QQ", page, PAGE_SIZE)
    made = batch.call(nr.process_vm_writev, batch.call(nr.getpid), here, 1, there, 1, 0, may_fail=True)
    runner.run(batch)
    if made.value == PAGE_SIZE and _HAS_OFFSETS in page.bytes():
        process.mm.torpor_vdso_offsets = page.bytes().rstrip(b"\0")


def plan(
    mm: m.mm_entry,
    parked: ParkedVdso,
    pid: Pid,
    read: Callable[[int, int], bytes | None],
    threads: Sequence[RestoreThread],
    offsets: bytes = b"",
) -> Plan:
    """Decide, with the puppet *pid* to look at; entries of mappings that become ordinary memory are changed.

    *read* gives the image's contents from one address to another, None where it has not all of them.  *offsets*: of the
    time namespace of before.  RestoreError, ImageError.
    """
    entries = entries_of(mm)
    old = next((entry for entry in entries if entry.status & AREA_VDSO), None)
    if old is None:
        # The task has unmapped its own, or its kernel had none.
        _make_ordinary(entries)
        return _unmapped(parked)
    if old.end - old.start > _MAX_SIZE:
        raise ImageError(f"a vdso of {old.end - old.start} bytes at {old.start:#x}")
    if len(offsets) > PAGE_SIZE:
        raise ImageError(f"offsets of {len(offsets)} bytes for the vdso")
    code = read(old.start, old.end)
    data = next((entry for entry in entries if entry.status & AREA_VVAR and entry.end - entry.start >= PAGE_SIZE), None)
    needs_offsets = bool(offsets) and data is not None and any(_is_in(thread, old) for thread in threads)
    ours = parked.vdso
    our_code = vm.read(pid, ours.start, ours.length) if ours is not None else b""
    if ours is not None and (code is None or (code == our_code and not needs_offsets)):
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
    if needs_offsets and data is not None:
        made.offsets_at, made.offsets = data.start, offsets
    whose = "has threads in its midst" if code == our_code else "is another kernel's"
    log.info(f"the vdso at {old.start:#x} {whose}: {len(written)} functions lead to this one's")
    _keep_threads(made, entries, code, written, threads, taken)
    return made


def write(made: Plan, pid: Pid) -> None:
    """Write over the image's code, while it is writable, and over its data."""
    if made.code:
        vm.write(pid, made.code_at, made.code)
    if made.offsets:
        write_forced(pid, made.offsets_at, made.offsets)


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


def _is_in(thread: RestoreThread, entry: m.vma_entry) -> bool:
    return bool(entry.start <= image.ip_of(thread.core) < entry.end)


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
    threads: Sequence[RestoreThread],
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
