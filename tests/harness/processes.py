"""Finding and ending the processes of one workload, and only these.

A workload is started with a mark in its environment. Children inherit it, a restored process has it again (the
environment is memory like any other), and nobody else has it: so what bears it may be killed, whatever its pid.
"""

import os
import signal
import time
import uuid
from contextlib import suppress
from pathlib import Path

from harness.events import ProcessWatch, time_limit_s

MARK_VARIABLE = "TORPOR_WORKLOAD"
#: What all marks of this test run begin with.
RUN = uuid.uuid4().hex


def new_mark() -> str:
    """A mark that nobody has."""
    return f"{RUN}-{uuid.uuid4().hex}"


def _bears(pid: int, mark: str) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"{MARK_VARIABLE}={mark}".encode() in environment.split(b"\0")


def _parents() -> dict[int, int]:
    """The parent of every process there is."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                # A name need not be text.
                stat = Path(f"/proc/{entry}/stat").read_text(errors="replace")
            except OSError:
                continue
            # The name, in parentheses, may contain anything; the state and the parent follow its last parenthesis.
            parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    return parents


def reap_session(session: int) -> None:
    """Free the pids of all children of ours (orphans, that is) in a session whose processes have all been killed.

    For what was born after anybody looked; as long as one is left, the session's number is no free pid either.
    """
    for pid, parent in _parents().items():
        with suppress(ChildProcessError, ProcessLookupError):
            if parent == os.getpid() and os.getsid(pid) == session:
                os.waitpid(pid, 0)


def find_tree(mark: str, roots: tuple[int, ...] = ()) -> list[int]:
    """The pids (as this process sees them) of all that bear the mark or are in `roots`, and of their descendants."""
    parents = _parents()
    found = {pid for pid in parents if pid in roots or _bears(pid, mark)} - {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def watch_tree(mark: str, roots: tuple[int, ...] = ()) -> list[ProcessWatch]:
    """Watches of all that `find_tree` finds; whoever asks for them closes them."""
    watches = []
    for pid in find_tree(mark, roots):
        with suppress(ProcessLookupError):
            watches.append(ProcessWatch(pid))
    return watches


def kill_tree(mark: str, root: ProcessWatch | None) -> None:
    """Kill all processes of a workload and wait until they are gone.

    `root` is its root process, which is found by this even if its environment is not (yet) what it was. Raises
    TimeoutError if one cannot be killed.
    """
    while True:
        # While the pidfd says that the root lives, its pid cannot be anybody else's.
        roots = (root.pid,) if root is not None and not root.has_ended() else ()
        watches = watch_tree(mark, roots)
        alive = [watch for watch in watches if not watch.has_ended()]
        for watch in alive:
            watch.signal(signal.SIGKILL)
        stubborn = [watch.pid for watch in alive if not watch.wait_ended(time_limit_s(10))]
        for watch in watches:
            # Zombies among them too: their parents are gone now, so they have become ours.
            if watch.has_ended():
                watch.reap()
            watch.close()
        if stubborn:
            raise TimeoutError(f"processes {stubborn} do not die of SIGKILL")
        if not alive:
            return
        # Once more: a process may have forked after it was looked for.


def own_children() -> set[int]:
    """The pids of our children, adopted ones among them."""
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


def wait_alone(known: set[int]) -> None:
    """Wait until we have no children but *known*: whom an engine that was killed has left to us has done its work.

    TimeoutError if somebody does not end.
    """
    deadline = time.monotonic() + time_limit_s(20)
    while others := own_children() - known:
        for pid in others:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{others} do not end")
        time.sleep(0.001)


def reap_adopted() -> None:
    """Wait for those of our children that are dead: processes of others whose parent has become we.

    Not to be called while a process started by `subprocess` may be dead and is still to be waited for.
    """
    for pid in own_children():
        with suppress(ChildProcessError, FileNotFoundError, ProcessLookupError):
            # A name need not be text.
            if Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "Z":
                os.waitpid(pid, os.WNOHANG)
