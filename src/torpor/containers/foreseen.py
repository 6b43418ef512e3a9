"""What a Podman container's restore will not find: told at its checkpoint, when something can still be done about it.

Podman binds directories of the host anew, and asks for them by their names; and it leaves a container's secrets out of
an archive, as it should, but does not put them back when it makes the container of that archive (seen in 4.3).  A unit
of systemd that runs a container (quadlet, ``podman generate systemd``) takes its checkpoint for its end.
"""

from __future__ import annotations

import os
from typing import Any

from torpor.base import log
from torpor.base.errors import RefusedError, TorporError
from torpor.containers import systemd


def problems(label: str, told: dict[str, Any]) -> list[TorporError]:
    """What of *told* (``podman inspect``) makes any restore fail."""
    found: list[TorporError] = []
    for mount in told.get("Mounts") or ():
        source = str(mount.get("Source", ""))
        if mount.get("Type") == "bind" and source.startswith("/") and not os.path.exists(source):
            what = f"{label} has {source} bound on {mount.get('Destination')}, and it is not there any more"
            found.append(RefusedError(what, hint="make it again, for podman restores nothing without"))
    return found


def unit_problems(told: dict[str, Any]) -> list[TorporError]:
    """What a unit of systemd that runs it does when it has ended; its main process is the container or its monitor."""
    state = told.get("State") or {}
    unit = systemd.watching({pid for key in ("Pid", "ConmonPid") if (pid := int(state.get(key) or 0))})
    found: list[TorporError] = list(unit.begins_anew()) if unit is not None else []
    return [] if found and systemd.is_going_down() else found


def losses(told: dict[str, Any]) -> list[str]:
    """What an archive does not hold, though its restore fails without."""
    names = [str(secret.get("Name")) for secret in (told.get("Config") or {}).get("Secrets") or ()]
    if not names:
        return []
    return [
        f"an archive does not hold its secrets ({', '.join(names)}), and podman makes no container of it without: only "
        "this container itself can be restored, as long as it is not removed"
    ]


def check(label: str, told: dict[str, Any], *, to_archive: bool, runs_on: bool, is_removed: bool) -> None:
    """RefusedError where nothing could be restored from the checkpoint; what else there is is a warning."""
    found = problems(label, told)
    if not runs_on:
        found += unit_problems(told)
    if found and not runs_on:
        raise found[0]
    for problem in found:
        log.warn(problem.describe())
    for loss in losses(told) if to_archive else ():
        if is_removed and not runs_on:
            raise RefusedError(f"{label}: {loss}; it was started with --rm", hint="--leave-running, or without secrets")
        log.warn(f"{label}: {loss}")
