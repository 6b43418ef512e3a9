"""cgroup namespace: which group is the root of what a task sees of each hierarchy.

Kernel view
    unshare(2) makes the groups that a task is in at that moment the roots.  /proc/PID/cgroup and mountinfo show paths
    as the reader's namespace has them, so the roots are what our view of a path has more than the namespace's own.
Image
    ``cg_member_entry.cgns_prefix``.
Restore
    The root puppet is moved into the roots, unshares, and is moved into its own groups.  Without anything known of
    the groups (they were not managed), the new namespace's roots are the groups in which it is restored.
Limits
    All processes of a tree must share theirs, and none may be in a group outside of its namespace's roots: refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from torpor.base.errors import RefusedError
from torpor.base.ids import Pid
from torpor.kernel.arch import nr
from torpor.kernel.namespaces import CLONE_NEWCGROUP, inside
from torpor.objects.cgroup import membership
from torpor.objects.cgroup.model import normal
from torpor.tracee.batch import Batch
from torpor.tracee.remote import Runner


def read_tops(pid: Pid, pidfd: int, only: Sequence[str]) -> dict[str, str]:
    """The roots, as we see them, of the cgroup namespace of the process *pid*, by hierarchy."""
    path = f"/proc/{pid}/cgroup"
    outer = membership.read(path, only)
    inner = {member.hierarchy: member.path for member in inside(pidfd, CLONE_NEWCGROUP, lambda: _read(path, only))}
    tops = {}
    for member in outer:
        own = inner.get(member.hierarchy, member.path)
        if own.startswith("/..") or not member.path.endswith(own.rstrip("/")):
            raise RefusedError(
                f"pid {pid} is in a control group ({member.path}) outside of its own cgroup namespace",
                hint="move it back below the namespace's root, or use --manage-cgroups=ignore",
            )
        tops[member.hierarchy] = normal(member.path[: len(member.path) - len(own.rstrip("/"))])
    return tops


def _read(path: str, only: Sequence[str]) -> tuple[membership.Member, ...]:
    return membership.read(path, only)


def enter_new(runner: Runner) -> None:
    """Have the groups that the puppet is in become the roots of what it sees."""
    batch = Batch()
    batch.call(nr.unshare, CLONE_NEWCGROUP)
    runner.run(batch)
