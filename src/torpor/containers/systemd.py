"""Units of systemd as a user names them: UNIT.service is its main process and everything below it.

Where systemd knows none, as of a scope, it is the one process that all others of the unit are below.

Not an engine: what systemd does about a unit that has ended is systemd's.  What that will be is told before.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torpor.base.errors import EngineError, TorporError, UsageError
from torpor.base.ids import Pid
from torpor.containers.commands import command_of, run
from torpor.kernel.procfs.mountinfo import Mount, read_mountinfo
from torpor.kernel.procfs.stat import read_stat
from torpor.kernel.procfs.task import read_tree

SUFFIXES = (".service", ".scope")
_ASKED = (
    "LoadState", "ActiveState", "MainPID", "Restart", "ControlGroup", "TriggeredBy", "RuntimeDirectory",
    "RuntimeDirectoryPreserve",
)  # fmt: skip
#: Where the groups that systemd makes are: version 2, both versions, version 1.
_GROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")
_N_NAMED = 3
#: What it keeps the private /tmp and /var/tmp of a unit in (PrivateTmp=), for as long as that runs.
_PRIVATE_TMP = "/systemd-private-"


@dataclass(frozen=True, slots=True)
class Unit:
    """``pid`` is its main process, ``restart`` systemd.service(5)'s word for when it is started anew.

    ``group`` is its control group, ``starters`` the units that start it when something comes in, ``removed`` the
    directories that go when it ends.
    """

    name: str
    pid: int
    restart: str = "no"
    group: str = ""
    starters: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def problems(self) -> Iterator[UsageError]:
        """What starts it anew as soon as it has been put to sleep, or takes away what it cannot be restored without."""
        yield from self.begins_anew()
        for mount in _mounts(self.pid):
            if _PRIVATE_TMP in mount.root:
                yield UsageError(
                    f"{self.name}: systemd removes its {mount.point} when it has ended (PrivateTmp=yes), and nothing "
                    "can be restored without",
                    hint="`systemctl edit --runtime` it to PrivateTmp=no, and start it anew",
                )

    def begins_anew(self) -> Iterator[UsageError]:
        """What starts it anew."""
        if self.restart != "no":
            yield UsageError(
                f"{self.name}: systemd starts it anew when it has ended (Restart={self.restart})",
                hint="--leave-running, or `systemctl edit --runtime` it to Restart=no for as long as it sleeps",
            )
        for starter in self.starters:
            holds = " holds its sockets, and" if starter.endswith(".socket") else ""
            yield UsageError(
                f"{self.name}: {starter}{holds} starts it anew when it has ended",
                hint=f"--leave-running, or `systemctl stop {starter}` for as long as it sleeps",
            )

    def insist_it_stays_ended(self) -> None:
        """UsageError if it would not."""
        for problem in self.problems():
            raise problem

    def losses(self) -> Iterator[str]:
        """What a checkpoint of the main process does not hold, though it ends with it."""
        tree = read_tree(Pid(self.pid))
        others = [pid for pid in _members(self.group) if pid not in tree]
        if others:
            more = ", ..." if len(others) > _N_NAMED else ""
            yield (
                f"{_named(others)}{more}: in {self.name}, but not below its main process, and so not in the checkpoint"
            )
        if below := sorted({place for place in _groups_of(tree) if place.startswith(f"{self.group}/")}):
            yield (
                f"the control groups that {self.name} has made ({', '.join(below)}), with their limits: what is "
                "restored is in the group of whoever restores it"
            )
        for directory in self.removed:
            yield f"{directory}: systemd removes it when {self.name} has ended (RuntimeDirectoryPreserve=no)"


def find(name: str) -> Unit:
    """The running unit of this name.  EngineError where no systemd answers, TorporError if it does not run."""
    found = _show(name)[0]
    state, group = found.get("ActiveState", ""), found.get("ControlGroup", "")
    if found.get("LoadState") != "loaded":
        kind = name.rpartition(".")[2]
        raise TorporError(
            f"there is no unit {name}",
            hint=f"`systemctl list-units --type={kind}` lists what there is; one of a user's own is called by its pid",
        )
    # Of a scope systemd knows none, nor of a service that it cannot guess it of.
    pid = int(found.get("MainPID") or 0) or _root_of(name, group)
    if pid == 0:
        raise TorporError(f"{name} has no main process ({state})", hint=f"`systemctl status {name}` shows what it does")
    return _unit(name, pid, found)


def watching(pids: Collection[int]) -> Unit | None:
    """The service whose main process is one of *pids*, as the monitor of a container is of a unit that runs it.

    None where systemd does not answer, too.
    """
    with suppress(EngineError):
        for found in _show("*.service", properties=("Id", *_ASKED)) if is_here() else ():
            if (pid := int(found.get("MainPID") or 0)) and pid in pids:
                return _unit(found["Id"], pid, found)
    return None


def _unit(name: str, pid: int, found: dict[str, str]) -> Unit:
    starters = found.get("TriggeredBy", "").split()
    active = {each.get("Id") for each in _show(*starters, properties=("Id", "ActiveState")) if _is_active(each)}
    # Names below /run; what comes after a colon are symbolic links to it.
    names = [word.partition(":")[0] for word in found.get("RuntimeDirectory", "").split()]
    is_kept = found.get("RuntimeDirectoryPreserve", "no") != "no"
    return Unit(
        name,
        pid,
        found.get("Restart") or "no",
        found.get("ControlGroup", ""),
        tuple(each for each in starters if each in active),
        () if is_kept else tuple(f"/run/{word}" for word in names),
    )


def _is_active(found: dict[str, str]) -> bool:
    return found.get("ActiveState") == "active"


def _show(*units: str, properties: Collection[str] = _ASKED) -> list[dict[str, str]]:
    """What systemd says of each of *units*, which may be patterns."""
    if not units:
        return []
    said = run("systemctl", "show", f"--property={','.join(properties)}", "--", *units, timeout_s=30)
    return [dict(line.partition("=")[::2] for line in each.splitlines()) for each in said.split("\n\n")]


def _root_of(name: str, group: str) -> int:
    """The process of a unit that all others there are below; 0 if nobody is in it."""
    members = set(_members(group))
    roots = []
    for pid in sorted(members):
        try:
            if read_stat(Pid(pid)).ppid not in members:
                roots.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    if len(roots) > 1:
        raise TorporError(
            f"{name} has several processes that are not below each other: {_named(roots)}",
            hint="checkpoint each by its pid",
        )
    return roots[0] if roots else 0


def _members(group: str) -> list[int]:
    """Every process in *group* and below it; none of a group that is gone, or of nobody's."""
    for place in _GROUPS if group.strip("/") else ():
        if os.path.isdir(place + group):
            found = []
            for directory, _, _ in os.walk(place + group):
                try:
                    found += [int(word) for word in Path(directory, "cgroup.procs").read_text().split()]
                except OSError:
                    continue  # removed meanwhile, or one of threads
            return found
    return []


def _groups_of(pids: Iterable[int]) -> Iterator[str]:
    """The paths of their control groups, of every hierarchy."""
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            continue
        yield from (line.split(":", 2)[2] for line in text.splitlines())


def _mounts(pid: int) -> list[Mount]:
    try:
        return read_mountinfo(Pid(pid))
    except OSError:
        return []


def _named(pids: list[int]) -> str:
    """The first of them by name and number."""
    told = []
    for pid in pids[:_N_NAMED]:
        try:
            told.append(f"{read_stat(Pid(pid)).comm} (pid {pid})")
        except (FileNotFoundError, ProcessLookupError):
            told.append(f"pid {pid}")
    return ", ".join(told)


def is_here() -> bool:
    """Whether systemd is this machine's init (sd_booted(3))."""
    return os.path.isdir("/run/systemd/system") and bool(command_of("systemctl"))


def scope_of(name: str) -> list[str]:
    """Words before a command line that has a scope of its own, torpor-NAME.scope; none without systemd."""
    words = command_of("systemd-run") if is_here() else []
    return [*words, "--scope", "--quiet", "--collect", f"--unit=torpor-{name}.scope", "--"] if words else []


def is_going_down() -> bool:
    """Whether the machine is: a unit that is only stopped or restarted is no reason to put anything to sleep."""
    return run("systemctl", "show", "--property=SystemState", "--value", timeout_s=30).strip() == "stopping"
