"""Namespaces that a container shares with another one of Podman's: found again when that has been started anew.

Podman writes them into the container's configuration by the pid that the other one had (``/proc/PID/ns/net``), whenever
it starts the container; a restore takes what stands there (seen in 4.3), which after a reboot is nobody's, or a
stranger's.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from torpor.base.errors import EngineError
from torpor.base.exchanging import exchanged
from torpor.base.fds import only_files
from torpor.containers.reboot import facts

_NAMESPACE = re.compile(r"/proc/(\d+)/ns/(\w+)")
_MAX_CONFIG = 16 << 20


def find_again(ident: str, shares: tuple[str, ...]) -> None:
    """Have the configuration of the container *ident* name the processes that those of *shares* have now.

    EngineError where one of them does not run.
    """
    told = facts.inspect(ident)
    place = Path(str((told or {}).get("OCIConfigPath") or "/nowhere"))
    if not shares or not place.is_file():
        return
    with open(place, "rb", opener=only_files) as stream:
        config = json.loads(stream.read(_MAX_CONFIG))
    others = {pid: other for pid, _, other in (each.partition(":") for each in shares)}
    changed = False
    for namespace in (config.get("linux") or {}).get("namespaces") or ():
        found = _NAMESPACE.fullmatch(str(namespace.get("path", "")))
        if found and found[1] in others:
            namespace["path"] = f"/proc/{_pid_of(others[found[1]])}/ns/{found[2]}"
            changed = True
    if changed:
        with exchanged(place, json.dumps(config).encode()) as beside:
            shutil.copystat(place, beside)


def _pid_of(ident: str) -> int:
    told = facts.inspect(ident) or {}
    pid = int((told.get("State") or {}).get("Pid") or 0)
    if not pid:
        raise EngineError(
            f"{told.get('Name', ident)}, whose namespaces it has, does not run", hint=f"podman start {ident}"
        )
    return pid
