"""From which NUMA nodes a thread's memory comes: set_mempolicy(2).

Kernel view
    get_mempolicy(2) by the thread itself.
Image
    ``torpor_mempolicy``, where the policy is not the default.
Restore
    set_mempolicy(2).  Nodes that this machine has not are a warning, not a failure.
Limits
    Policies of single mappings (mbind(2)) are ``memory.placement``'s.
"""

from __future__ import annotations

import os

from torpor.base import log
from torpor.kernel.arch import nr
from torpor.objects.model import DumpThread, RestoreThread
from torpor.tracee.batch import Batch

_DEFAULT = 0
_MAX_NODES = 1024


def ask(thread: DumpThread, batch: Batch) -> None:
    """Ask for the policy."""
    mode, nodes = batch.out(8), batch.out(_MAX_NODES // 8)
    asked = batch.call(nr.get_mempolicy, mode, nodes, _MAX_NODES, 0, 0, may_fail=True)  # a kernel without NUMA

    def collect() -> None:
        found = int.from_bytes(mode.bytes()[:4], "little")
        if not asked.errno and found != _DEFAULT:
            policy = thread.core.thread_core.torpor_mempolicy
            policy.mode, policy.nodes = found, nodes.bytes().rstrip(b"\0")

    batch.then(collect)


def reset(batch: Batch) -> None:
    """In the root puppet: the default, whatever was inherited from us."""
    batch.call(nr.set_mempolicy, _DEFAULT, 0, 0, may_fail=True)


def restore(thread: RestoreThread, batch: Batch) -> None:
    """Set what is not the default."""
    core = thread.core.thread_core
    if not core.HasField("torpor_mempolicy"):
        return
    policy = core.torpor_mempolicy
    nodes = batch.data(policy.nodes[: _MAX_NODES // 8].ljust(_MAX_NODES // 8, b"\0"))
    done = batch.call(nr.set_mempolicy, policy.mode, nodes, _MAX_NODES, may_fail=True)
    tid = thread.ns_tid

    def collect() -> None:
        if done.errno:
            log.warn(f"thread {tid}: its memory policy {policy.mode:#x} cannot be set: {os.strerror(done.errno)}")

    batch.then(collect)
