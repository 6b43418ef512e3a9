"""From which NUMA nodes the memory of single mappings comes: mbind(2).

Kernel view
    ``/proc/PID/numa_maps`` names the policy of each mapping, and counts its pages for that: a second for some 70 GB in
    small pages.  So it is read before the tree is stopped, and only where there are nodes to choose from: with one, a
    policy changes nothing.  Of the few mappings that have one, the task itself then asks get_mempolicy(2).
Image
    ``vma_entry.torpor_mempolicy``, as of threads (``task.mempolicy``).  CRIU does not carry it.
Restore
    mbind(2) once the contents are in.  Nodes that this machine has not are a warning, not a failure.
Limits
    Pages that were restored stay where they are; the policy is that of new ones.  Not seen are: a policy that is the
    same as the thread's, one given while the dump looks, others behind the first in a shared mapping, and the home node
    (set_mempolicy_home_node(2)).
"""

from __future__ import annotations

import os
from contextlib import suppress

from torpor.base import log
from torpor.images import messages as m
from torpor.kernel.arch import nr
from torpor.kernel.procfs.small import read_small
from torpor.kernel.uapi.mempolicy import MPOL_DEFAULT, MPOL_F_ADDR
from torpor.objects.model import DumpProcess
from torpor.objects.session import Noticed
from torpor.tracee.batch import Batch, Data, Result

_MAX_NODES = 1024


def look(process: DumpProcess, noticed: Noticed) -> None:
    """Note the mappings of a running process, whose ``maps`` are known, that have a policy of their own."""
    with suppress(FileNotFoundError):  # a kernel without NUMA
        policies = dict(_parse(line) for line in read_small(f"/proc/{process.pid}/numa_maps").splitlines())
        # The kernel shows that of the task for those that have none, as nobody gives the vdso one.
        usual = {policies.get(vma.start) for vma in process.maps if vma.is_vdso} or {"default"}
        if found := [start for start, policy in policies.items() if policy not in usual]:
            noticed.placed[process.pid] = found


def _parse(line: str) -> tuple[int, str]:
    start, _, rest = line.partition(" ")
    # "prefer (many):0-1" has a space.
    return int(start, 16), rest.replace("prefer (many)", "prefer-many").replace("weighted ", "weighted-").split(" ")[0]


def ask(process: DumpProcess, noticed: Noticed, batch: Batch) -> None:
    """Ask, inside the stopped process, for the policies of those that were noted and are still there."""
    noted = frozenset(noticed.placed.get(process.pid, ()))
    for entry in process.mm.vmas:
        if entry.start in noted:
            _ask_one(entry, batch)


def _ask_one(entry: m.vma_entry, batch: Batch) -> None:
    mode, nodes = batch.out(8), batch.out(_MAX_NODES // 8)
    asked = batch.call(nr.get_mempolicy, mode, nodes, _MAX_NODES, entry.start, MPOL_F_ADDR, may_fail=True)
    batch.then(lambda: _collect(entry, asked, mode, nodes))


def _collect(entry: m.vma_entry, asked: Result, mode: Data, nodes: Data) -> None:
    found = int.from_bytes(mode.bytes()[:4], "little")
    if asked.errno:
        log.warn(f"the memory policy of the mapping at {entry.start:#x} is lost: {os.strerror(asked.errno)}")
    elif found != MPOL_DEFAULT:
        entry.torpor_mempolicy.mode, entry.torpor_mempolicy.nodes = found, nodes.bytes().rstrip(b"\0")


def restore(entry: m.vma_entry, batch: Batch) -> None:
    """Set the policy of a mapping that has one."""
    policy = entry.torpor_mempolicy
    nodes = batch.data(policy.nodes[: _MAX_NODES // 8].ljust(_MAX_NODES // 8, b"\0"))
    length = entry.end - entry.start
    done = batch.call(nr.mbind, entry.start, length, policy.mode, nodes, _MAX_NODES, 0, may_fail=True)

    def collect() -> None:
        if done.errno:
            log.warn(
                f"the memory policy {policy.mode:#x} of the mapping at {entry.start:#x} cannot be set: "
                f"{os.strerror(done.errno)}"
            )

    batch.then(collect)
