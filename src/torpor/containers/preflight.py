"""What a runtime tells criu when it checkpoints a container, as words of a criu command line, without doing it.

runc's way: the root file system, bind mounts, cgroup mounts, masked paths and devices as external mounts, namespaces
that the configuration names by path as external ones, terminals whose master conmon or a shim holds, and the options of
``/etc/criu/runc.conf`` or of the file that the annotation ``org.criu.config`` names.  crun does likewise, with
``/etc/criu/crun.conf`` before that; one that does not know these files (1.21) gives no options of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torpor.base.fds import only_files
from torpor.containers.commands import command_of
from torpor.containers.model import Runtime
from torpor.containers.oci import CRUN

_DEFAULT_CONFIG, _CRUN_CONFIG = "/etc/criu/runc.conf", "/etc/criu/crun.conf"
_MAX_CONFIG = 16 << 20


@dataclass(frozen=True, slots=True)
class Order:
    """The words, and the file whose options come over them."""

    words: tuple[str, ...]
    config_file: str


def order_for(pid: int, runtime: Runtime) -> Order:
    """What the dump of the container whose first process is *pid* would be told."""
    config = _read(runtime.config)
    words = ["--manage-cgroups=soft", "--orphan-pts-master", f"--root={_root_of(config, runtime)}"]
    words += [f"--external=mnt[{place}]:{place}" for place in _external_mounts(config)]
    words += _external_namespaces(pid, config)
    return Order(tuple(words), _config_file(config, runtime))


def _config_file(config: dict[str, object], runtime: Runtime) -> str:
    """The file of options that the runtime names; nothing if none."""
    if runtime.name == CRUN.name and not _knows_files(command_of(CRUN.name)):
        return ""
    annotations = config.get("annotations")
    chosen = annotations.get("org.criu.config") if isinstance(annotations, dict) else None
    if isinstance(chosen, str):
        return chosen
    return _CRUN_CONFIG if runtime.name == CRUN.name and os.path.exists(_CRUN_CONFIG) else _DEFAULT_CONFIG


def _knows_files(command: list[str]) -> bool:
    """Whether that crun has the name in it: nothing else tells."""
    with suppress(OSError, IndexError):
        return _CRUN_CONFIG.encode() in Path(command[0]).read_bytes()
    return False


def _read(path: Path | None) -> dict[str, object]:
    if path is not None:
        with suppress(OSError, ValueError, RecursionError), open(path, "rb", opener=only_files) as stream:
            found = json.loads(stream.read(_MAX_CONFIG))
            return found if isinstance(found, dict) else {}
    return {}


def _root_of(config: dict[str, object], runtime: Runtime) -> str:
    root = config.get("root")
    path = str(root.get("path", "/")) if isinstance(root, dict) else "/"
    return path if path.startswith("/") or runtime.config is None else str(runtime.config.parent / path)


def _records(where: object, key: str) -> Iterator[dict[str, object]]:
    found = where.get(key) if isinstance(where, dict) else None
    for each in found if isinstance(found, list) else ():
        if isinstance(each, dict):
            yield each


def _external_mounts(config: dict[str, object]) -> Iterator[str]:
    linux = config.get("linux")
    for mount in _records(config, "mounts"):
        options = mount.get("options")
        is_bind = mount.get("type") == "bind" or (
            isinstance(options, list) and {"bind", "rbind"} & set(map(str, options))
        )
        if is_bind and isinstance(place := mount.get("destination"), str):
            yield place
    masked = linux.get("maskedPaths") if isinstance(linux, dict) else None
    yield from (each for each in masked if isinstance(each, str)) if isinstance(masked, list) else ()
    for device in _records(linux, "devices"):
        if isinstance(place := device.get("path"), str):
            yield place


def _external_namespaces(pid: int, config: dict[str, object]) -> Iterator[str]:
    linux = config.get("linux")
    for namespace in _records(linux, "namespaces"):
        kind = {"network": "net", "pid": "pid"}.get(str(namespace.get("type")))
        if kind is not None and namespace.get("path"):
            with suppress(OSError):
                yield f"--external={kind}[{os.stat(f'/proc/{pid}/ns/{kind}').st_ino}]:extRoot{kind.capitalize()}NS"
