"""Which container a process is in, by the control group that its engine has made for it.

A container's first process looks like any other.  Checkpointed behind its engine's back it would end, and the engine
would take the container for dead: its engine's own command is what serves.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torpor.base.errors import RefusedError, TorporError
from torpor.base.fds import only_files

#: Control groups by engine: what is before the id or name, which ends at the next slash or suffix.
_GROUPS = (
    ("podman", re.compile(r"/libpod-(?:conmon-|payload-)?([0-9a-f]{64})")),
    ("docker", re.compile(r"/docker[/-]([0-9a-f]{64})")),
    ("containerd", re.compile(r"/cri-containerd-([0-9a-f]{64})")),
    ("cri-o", re.compile(r"/crio-([0-9a-f]{64})")),
    ("lxc", re.compile(r"/lxc(?:\.payload\.|/)([^/]+)")),
)
#: What a user's own manager has made, below which are the groups of containers that are run without root.
_USER = re.compile(r"/user-(\d+)\.slice/user@\1\.service/")
#: Runtimes on their own: the file of a container in their state directory, and what in it is its first process.
_STATES = (("runc", "state.json", "init_process_pid"), ("crun", "status", "pid"))


@dataclass(frozen=True, slots=True)
class Inside:
    """The container's engine, its id or name there, and the user who runs it without root, if so."""

    engine: str
    id: str
    user: str = ""


def container_of(pid: int, group_file: str = "/proc/{}/cgroup") -> Inside | None:
    """The container that *pid* is in and we are not; None if it is in none that we know the signs of."""
    found = _by_group(group_file.format(pid))
    if found is not None:
        return found if found != _by_group(group_file.format("self")) else None
    return _by_runtime(pid)


def refusal(pid: int, inside: Inside) -> RefusedError:
    """The error for a checkpoint of *pid* alone, with the container's name where its engine tells."""
    engine, name = inside.engine, inside.id
    if inside.user and engine == "podman":
        return RefusedError(
            f"pid {pid} is in the container {name} that user {inside.user} runs by podman without root, and podman "
            "checkpoints none of those",
            hint="run it as root: sudo podman run",
        )
    from torpor.containers.names import ENGINES

    if engine in ENGINES:
        with suppress(TorporError):
            containers = ENGINES[engine].find(name)
            name = containers[0].name if containers else name
    command = _COMMANDS.get(engine)
    by_engine = f", or {command.format(name)}" if command else ""
    own = f"torpor checkpoint {engine}:{name}" if engine in ENGINES else f"a command of {engine}"
    return RefusedError(
        f"pid {pid} is in the container {name} of {engine}, which would take it for dead", hint=f"{own}{by_engine}"
    )


_COMMANDS = {
    "podman": "podman container checkpoint {}",
    "docker": "docker checkpoint create {} NAME",
    "runc": "runc checkpoint {}",
    "crun": "crun checkpoint {}",
    "lxc": "lxc-checkpoint -s -n {}",
}


def _by_group(path: str) -> Inside | None:
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for engine, pattern in _GROUPS:
        if found := pattern.search(text):
            user = _USER.search(text)
            return Inside(engine, found.group(1), user.group(1) if user else "")
    return None


def _by_runtime(pid: int) -> Inside | None:
    """A container of a runtime's own may be in any group; its state tells the first process."""
    from torpor.containers.oci import state_root

    with suppress(OSError):
        theirs = os.readlink(f"/proc/{pid}/ns/mnt")
        if theirs == os.readlink("/proc/self/ns/mnt"):
            return None
        for engine, file, key in _STATES:
            for root in {f"/run/{engine}", state_root(engine)}:
                for name in _listed(root):
                    with suppress(OSError, ValueError, TypeError, LookupError):
                        with open(f"{root}/{name}/{file}", "rb", opener=only_files) as stream:
                            told = json.loads(stream.read())
                        if os.readlink(f"/proc/{told[key]}/ns/mnt") == theirs:
                            return Inside(engine, name)
    return None


def _listed(root: str) -> list[str]:
    try:
        return os.listdir(root)
    except OSError:
        return []
