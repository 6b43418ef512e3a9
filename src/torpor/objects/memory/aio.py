"""Rings of asynchronous I/O: what io_setup(2) makes.

Kernel view
    A mapping of ``/[aio] (deleted)`` whose address is the context's name.  It starts with a header of eight words:
    id, number of events, head, tail, magic, two sets of features, length of the header; the events follow.
Image
    AREA_AIORING with its pages among the task's own, and ``mm_entry.aios``, as CRIU has them.
Restore
    The contents come back into a placeholder.  A new context gets its tail by requests that do nothing (a read from
    /dev/null), its events from the placeholder, and takes the placeholder's place by mremap(2), which gives the context
    its old name.
Limits
    A request that is still under way inside the kernel cannot be seen.  The dump waits until the tail rests; one that
    takes longer (or a poll) is done by nobody after the restore.  A machine with so many CPUs that its rings are larger
    cannot restore the smallest.
"""

from __future__ import annotations

import errno
import os
import struct
import time

from torpor.base.errors import RefusedError, RestoreError
from torpor.base.ids import Pid
from torpor.images import messages as m
from torpor.kernel import vm
from torpor.kernel.arch import nr
from torpor.kernel.procfs.maps import PROT_READ, PROT_WRITE, Vma
from torpor.kernel.uapi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MREMAP_FIXED, MREMAP_MAYMOVE
from torpor.objects.memory.areas import AREA_AIORING
from torpor.objects.model import DumpProcess
from torpor.tracee.batch import Batch
from torpor.tracee.remote import Runner

_MAGIC = 0xA10A10A1
_HEADER = struct.Struct("<8I")
_EVENT_SIZE = 32
_HEAD_OFFSET = 8
# struct iocb, its data and key words left at zero: a read of one byte.
_IOCB = "<QIIHhIQQqQII"
_PREAD = 0
_MAX_SUBMIT = 512
_MAX_ATTEMPTS = 100
_SETTLE_S = 0.001
_MAX_WAITS = 200


def dump(process: DumpProcess, vma: Vma, entry: m.vma_entry) -> None:
    """Complete *entry*, and add the context to ``mm_entry.aios``.  A stopped task's requests are waited for."""
    header = _HEADER.unpack(vm.read(process.pid, vma.start, _HEADER.size))
    n_events = (vma.length - _HEADER.size) // _EVENT_SIZE
    if (header[1], header[4], header[7]) != (n_events, _MAGIC, _HEADER.size):
        raise RefusedError(
            f"{process.describe()} has a ring of asynchronous I/O at {vma.start:#x} that is not as the kernel made it",
            hint="have the program end that io_setup(2) context",
        )
    if process.threads:
        _settle(process.pid, vma.start)
    entry.status = AREA_AIORING
    entry.pgoff = 0
    # What was asked for is doubled, and two are added, before it is rounded up to pages.
    process.mm.aios.add(id=vma.start, nr_req=(n_events - 2) // 2, ring_len=vma.length)


def _settle(pid: Pid, start: int) -> None:
    """Wait until no request has ended for a moment."""
    before = b""
    for _ in range(_MAX_WAITS):
        header = vm.read(pid, start, _HEADER.size)
        if header == before:
            return
        before = header
        time.sleep(_SETTLE_S)


def add_placeholder(entry: m.vma_entry, batch: Batch) -> None:
    """The mapping that takes the contents."""
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
    batch.call(nr.mmap, entry.start, entry.end - entry.start, PROT_READ | PROT_WRITE, flags, -1, 0)


def restore(runner: Runner, mm: m.mm_entry, null: int) -> None:
    """Make the contexts whose contents are in their placeholders; *null* is the task's number for /dev/null."""
    for ring in mm.aios:
        _restore_one(runner, ring, null)


def _restore_one(runner: Runner, ring: m.aio_ring_entry, null: int) -> None:
    pid = runner.tid
    content = vm.read(pid, ring.id, ring.ring_len)
    _, n_events, head, tail, *_ = _HEADER.unpack_from(content)
    batch = Batch()
    made = batch.out(8)
    batch.call(nr.io_setup, ring.nr_req, made)
    runner.run(batch)
    at = int.from_bytes(made.bytes(), "little")
    got = _HEADER.unpack(vm.read(pid, at, _HEADER.size))[1]
    if got != n_events or max(head, tail) >= n_events or ring.ring_len < _HEADER.size + n_events * _EVENT_SIZE:
        raise RestoreError(f"a ring of asynchronous I/O had {n_events} events, and gets {got} on this machine")
    _advance(runner, at, null, n_events, head, tail)
    vm.write(pid, at + _HEADER.size, content[_HEADER.size :])
    batch = Batch()
    batch.call(nr.mremap, at, ring.ring_len, ring.ring_len, MREMAP_MAYMOVE | MREMAP_FIXED, ring.id)
    runner.run(batch)


def _advance(runner: Runner, at: int, null: int, n_events: int, head: int, tail: int) -> None:
    """Bring the ring's tail, which only the kernel moves, and its head to where they were."""
    # A tail behind its head has been round: the kernel counts what is used by both.
    total = tail if tail >= head else n_events + tail
    done = attempts = 0
    while done < total:
        wanted = min(total - done, _MAX_SUBMIT)
        batch = Batch()
        byte = batch.out(1)
        request = batch.pack(_IOCB, 0, 0, 0, _PREAD, 0, null, byte, 1, 0, 0, 0, 0)
        requests = batch.pack(f"<{'Q' * wanted}", *[request] * wanted)
        submitted = batch.call(nr.io_submit, at, wanted, requests, may_fail=True)
        runner.run(batch)
        if submitted.errno:
            attempts += 1
            if submitted.errno != errno.EAGAIN or attempts > _MAX_ATTEMPTS:
                raise RestoreError(f"a ring of asynchronous I/O cannot be filled: {os.strerror(submitted.errno)}")
        else:
            done += submitted.value
        # As io_getevents(2) moves it; what has been read makes room.
        vm.write(runner.tid, at + _HEAD_OFFSET, min(done, head).to_bytes(4, "little"))
