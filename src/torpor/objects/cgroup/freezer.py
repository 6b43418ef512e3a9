"""The freezer: a control group all of whose tasks, and all below it, do not run.

Kernel view
    ``freezer.state`` of v1 (THAWED, FREEZING, FROZEN), which asks again and again to be read before it says FROZEN;
    ``cgroup.freeze`` of v2 (0, 1), and ``frozen`` in its ``cgroup.events``.
Dump
    The group is frozen, so that nothing can fork while the tree is seized, and thawed, whereupon the threads stop for
    us instead.  It is left as it was met: a tree that was paused is so again before we let go of it, even if we die.
Image
    ``freezer.state`` of v1, as it was met, beside the group's other properties; ``cgroup.freeze`` of v2 as it is then.
Restore
    A property like any other (``properties``), but the last one: written just before the tasks are let go.
Limits
    A group that is frozen because one above it is cannot be thawed by itself, and is refused.  One that does not get
    frozen in time (a task in uninterruptible sleep) is thawed again, and its tasks are stopped one by one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence

from torpor.base import log
from torpor.base.errors import RefusedError, TorporError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.objects.cgroup import membership, model
from torpor.objects.cgroup.model import describe_group
from torpor.objects.cgroup.yard import Yard
from torpor.objects.outside import Lasting
from torpor.tracee.caretaker import Caretaker, send
from torpor.tracee.tree import FrozenTree, Held, freeze

_V1, _V2 = "freezer.state", "cgroup.freeze"
#: What to write to thaw and to freeze.
_WORDS = {_V1: (b"THAWED", b"FROZEN"), _V2: (b"0", b"1")}
_WAIT_S = 2.0
_PAUSES_S = (0.0002, 0.02)


class Freezer(Lasting):
    """The freezer of one group, in the state in which it was met; *caretaker* makes it so again if we die.

    RefusedError: there is none at *path*, it cannot be thawed by itself, or we are in it ourselves.
    """

    def __init__(self, path: str, caretaker: Caretaker) -> None:
        self._path = path
        self._directory = _open(path)
        self._name, self._state = self._find()
        self._thaw, self._freeze = _WORDS[self._name]
        self.was_frozen = self._reads_frozen()
        self._check()
        self._caretaker = caretaker
        self._keys: list[int] = []

    @property
    def keys(self) -> list[int]:
        """What the caretaker knows it by, while the tree is stopped."""
        return self._keys

    @property
    def state(self) -> str:
        """v1's word for the state in which it was met; nothing for v2."""
        return ("FROZEN" if self.was_frozen else "THAWED") if self._name == _V1 else ""

    def stop(self, pid: Pid, *, entered: Mapping[Pid, Sequence[Pid]] | None = None) -> FrozenTree:
        """Stop *pid* and everything below it; as :func:`torpor.tracee.tree.freeze`."""
        held = Held()
        met = self._freeze if self.was_frozen else self._thaw
        self._keys = self._caretaker.add([send(self._state.fileno(), met)])
        try:
            if self.was_frozen or self._hold():
                held.seize(pid)
            self._write(self._thaw)
            tree = freeze(pid, held=held, entered=entered)
        except BaseException:
            self._write(self._thaw)
            held.release()
            self._give_back(True)
            raise
        held.release()
        tree.before_end = self._give_back
        return tree

    def _give_back(self, lives: bool) -> None:
        """Make it what it was, if the tree *lives*; killed, it would not die of that while it is frozen (v1)."""
        if lives and self.was_frozen:
            self._write(self._freeze)
        self._caretaker.drop(self._keys)
        self._keys = []

    def _find(self) -> tuple[str, OwnedFd]:
        for name in (_V1, _V2):
            try:
                return name, OwnedFd(os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=self._directory.fileno()))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise RefusedError(
                    f"{self._path}/{name}: {error.strerror}", hint="freezing a control group is root's to do"
                ) from None
        raise RefusedError(
            f"{self._path} is no control group that can be frozen",
            hint="--freeze-cgroup wants one of v1's freezer or v2",
        )

    def _check(self) -> None:
        if self._name == _V1:
            above = self._read("freezer.parent_freezing").strip() == "1"
        else:
            above = _is_frozen_above(self._directory.fileno())
        if above:
            raise RefusedError(f"{self._path} is frozen by a control group above it", hint="thaw that one, or name it")
        if _is_ours(self._directory.fileno(), "freezer" if self._name == _V1 else model.V2):
            raise RefusedError(
                f"torpor itself is in {self._path}, and would freeze itself", hint="run it in another control group"
            )

    def _hold(self) -> bool:
        """Freeze it and wait until it is frozen; False (and thawed) if it does not get so far."""
        self._write(self._freeze)
        end = time.monotonic() + _WAIT_S
        pause = _PAUSES_S[0]
        while not self._is_frozen():
            if time.monotonic() > end:
                log.warn(f"{self._path} does not freeze within {_WAIT_S:g} s: its tasks are stopped one by one")
                self._write(self._thaw)
                return False
            time.sleep(pause)
            pause = min(2 * pause, _PAUSES_S[1])
        return True

    def _reads_frozen(self) -> bool:
        return os.pread(self._state.fileno(), 64, 0).strip() not in (b"THAWED", b"0")

    def _is_frozen(self) -> bool:
        if self._name == _V1:
            return os.pread(self._state.fileno(), 64, 0).strip() == b"FROZEN"
        return "frozen 1" in self._read("cgroup.events")

    def _write(self, word: bytes) -> None:
        try:
            os.pwrite(self._state.fileno(), word, 0)
        except OSError as error:
            raise TorporError(f"{self._path}/{self._name}: {error.strerror}") from None

    def _read(self, name: str) -> str:
        return _read_at(self._directory.fileno(), name)


def _open(path: str) -> OwnedFd:
    try:
        return OwnedFd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        raise RefusedError(
            f"{path}: {error.strerror}", hint="--freeze-cgroup wants a control group's directory"
        ) from None


def _read_at(directory: int, name: str) -> str:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.read(fd, 4096).decode()
    finally:
        os.close(fd)


def _is_frozen_above(directory: int) -> bool:
    path = ".."
    while True:
        try:
            if _read_at(directory, f"{path}/{_V2}").strip() == "1":
                return True
        except FileNotFoundError:
            return False  # the root, which cannot be frozen
        path += "/.."


def _is_ours(directory: int, hierarchy: str) -> bool:
    """Whether we are in that group or below it."""
    theirs = os.fstat(directory)
    yard = Yard()
    for member in membership.read("/proc/self/cgroup"):
        if hierarchy not in member.hierarchy.split(","):
            continue
        path = member.path
        while path != "/":
            info = os.stat(path.lstrip("/"), dir_fd=yard.root_fd(member.hierarchy))
            if (info.st_dev, info.st_ino) == (theirs.st_dev, theirs.st_ino):
                return True
            path = path.rpartition("/")[0] or "/"
    return False


def frozen_group(pid: Pid) -> str:
    """The group of *pid* that is frozen, itself or by one above it; nothing if none is."""
    yard = Yard()
    for member in membership.read(f"/proc/{pid}/cgroup"):
        is_v2 = member.hierarchy == model.V2
        if member.path == "/" or not (is_v2 or "freezer" in member.hierarchy.split(",")):
            continue
        with OwnedFd(yard.open_dir(member.hierarchy, member.path)) as directory:
            text = _read_at(directory.fileno(), "cgroup.events" if is_v2 else _V1)
        if "frozen 1" in text or text.startswith("FR"):
            return describe_group(member.hierarchy, member.path)
    return ""
