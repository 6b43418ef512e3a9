"""The ids of threads whose process may not choose them itself (clone3's set_tid): a confined one.

``/proc/sys/kernel/ns_last_pid`` says what the next id in its writer's pid namespace is: our own, or that of a process
of ours in another one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from contextlib import ExitStack

from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid, TreePid
from torpor.kernel.arch import nr
from torpor.kernel.namespaces import CLONE_NEWPID
from torpor.kernel.procfs.status import read_status
from torpor.tracee import puppet
from torpor.tracee.batch import Batch
from torpor.tracee.remote import Runner, kill_and_reap
from torpor.tracee.stub import Join, Stub, spawn

_LAST_PID = "/proc/sys/kernel/ns_last_pid"
_ATTEMPTS = 100
_PAUSE_S = 0.02
_FD = 3


class Chooser:
    """For all processes of a tree.  Use it in a ``with``."""

    def __init__(self, area: int, reserved: Collection[TreePid]) -> None:
        """*area*: where puppets have the loop.  *reserved*: ids that nobody of ours may take."""
        self._area = area
        self._reserved = reserved
        #: By the inode of a pid namespace: who is inside of it, and whose child that is.
        self._inside: dict[int, tuple[Stub, Runner]] = {}

    def clone_thread(self, parent: Runner, tid: TreePid) -> Runner:
        """Let *parent* make a thread with that id (in its innermost pid namespace); stopped.

        RestoreError where the id is taken.
        """
        is_ours = len(read_status(parent.tid).ns_pids) == 1
        for _ in range(_ATTEMPTS):
            if is_ours and os.path.exists(f"/proc/{tid}"):
                # Perhaps by something short-lived that was born in between.
                time.sleep(_PAUSE_S)
                continue
            child = self._clone_next(parent, tid) if is_ours else self._clone_inside(parent, tid)
            if read_status(parent.thread.tgid, child.tid).ns_pids[-1] == tid:
                return child
            puppet.discard(parent, child, puppet.THREAD_FLAGS)
        raise puppet.taken((tid,), parent)

    def _clone_next(self, parent: Runner, tid: TreePid) -> Runner:
        with ExitStack() as stack:
            return puppet.clone_thread_next(parent, lambda: stack.enter_context(puppet.next_pid(Pid(tid))))

    def _clone_inside(self, parent: Runner, tid: TreePid) -> Runner:
        inside = self._enter(parent)

        def choose() -> None:
            batch = Batch()
            text = batch.data(str(tid - 1).encode())
            batch.call(nr.pwrite64, _FD, text, text.size, 0)
            inside.run(batch)

        return puppet.clone_thread_next(parent, choose)

    def _enter(self, parent: Runner) -> Runner:
        path = f"/proc/{parent.tid}/ns/pid"
        namespace = os.stat(path).st_ino
        if namespace not in self._inside:
            last_pid = OwnedFd(os.open(_LAST_PID, os.O_WRONLY | os.O_CLOEXEC))
            with last_pid, OwnedFd(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as joined:
                stub = spawn(self._area, keep_fds={_FD: last_pid.fileno()}, joins=[Join(joined.fileno(), CLONE_NEWPID)])
            try:
                self._inside[namespace] = stub, self._bear(stub)
            except BaseException:
                kill_and_reap([stub.thread])
                raise
        return self._inside[namespace][1]

    def _bear(self, stub: Stub) -> Runner:
        # Of those that nobody wants, the highest are the last to be given to anybody else.
        wanted = max(self._reserved, default=TreePid(1))
        while True:
            wanted = TreePid(wanted + 1)
            try:
                return puppet.clone(stub.runner, flags=0, exit_signal=0, set_tid=(wanted,))
            except puppet.TakenError:
                continue

    def close(self) -> None:
        """Nobody of ours is left in any namespace."""
        for stub, inside in self._inside.values():
            # Waited for by its parent too: a dead one would keep the namespace's first process from ending.
            puppet.discard(stub.runner, inside, 0)
            kill_and_reap([stub.thread])
            stub.life.close()
        self._inside.clear()

    def __enter__(self) -> Chooser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
