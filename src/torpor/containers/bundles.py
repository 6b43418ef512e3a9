"""Bundles of the OCI runtime specification, as far as a container's move to another host depends on them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from torpor.base.errors import EngineError, NotPermittedError, TorporError
from torpor.base.fds import OwnedFd, only_files
from torpor.containers.commands import command_of
from torpor.containers.oci import RUNC, check_bundle
from torpor.kernel.procfs.small import read_bytes
from torpor.objects.cgroup import membership, model
from torpor.objects.cgroup.yard import Yard

_CONFIG, _MAX_CONFIG = "config.json", 16 << 20


def read(bundle: Path) -> dict[str, object]:
    """The configuration; EngineError where there is none."""
    path = bundle / _CONFIG
    try:
        with open(path, "rb", opener=only_files) as stream:
            found = json.loads(stream.read(_MAX_CONFIG))
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise EngineError(f"there is no bundle in {bundle}: {_CONFIG}: {why}") from None
    if not isinstance(found, dict):
        raise EngineError(f"there is no bundle in {bundle}: {_CONFIG} is no object")
    return found


def has_terminal(config: dict[str, object]) -> bool:
    """Whether its first process is given one."""
    return bool(_object(config, "process").get("terminal"))


def network_of(config: dict[str, object]) -> str:
    """The network namespace that it is put into; "" where it gets one of its own, or has the host's."""
    return next((path for kind, path in _namespaces(config) if kind == "network"), "")


def _object(where: object, key: str) -> dict[str, object]:
    found = where.get(key) if isinstance(where, dict) else None
    return found if isinstance(found, dict) else {}


def _records(where: dict[str, object], key: str) -> Iterator[dict[str, object]]:
    found = where.get(key)
    yield from (each for each in found if isinstance(each, dict)) if isinstance(found, list) else ()


def _namespaces(config: dict[str, object]) -> Iterator[tuple[str, str]]:
    for namespace in _records(_object(config, "linux"), "namespaces"):
        if path := str(namespace.get("path") or ""):
            yield str(namespace.get("type")), path


# -- the destination -----------------------------------------------------------------------------------------------


def problems(bundle: str, name: str) -> list[TorporError]:
    """What stands in the way of a container called *name* from *bundle* here."""
    if not command_of(RUNC.name):
        return [EngineError(f"there is no {RUNC.name} here")]
    place = Path(bundle)
    try:
        config = read(place)
    except EngineError as error:
        error.hint = f"copy the bundle, or mount it there; --bundle says where it is, if not in {bundle}"
        return [error]
    found: list[TorporError] = []
    try:
        check_bundle(bundle)
    except NotPermittedError as error:
        found.append(error)
    if has_terminal(config):
        found.append(EngineError(f"the bundle in {bundle} has a terminal here", hint='"terminal": false'))
    found += _of_places(place, config)
    if any(each.id == name for each in RUNC.find(name)):
        found.append(
            EngineError(f"runc has a container called {name} here", hint="--name calls the one that comes otherwise")
        )
    found += _of_groups(str(_object(config, "linux").get("cgroupsPath") or ""), name)
    return found


def _of_places(bundle: Path, config: dict[str, object]) -> Iterator[TorporError]:
    root = bundle / str(_object(config, "root").get("path") or "rootfs")
    if not root.is_dir() or not any(root.iterdir()):
        yield EngineError(
            f"there is no root file system in {root}",
            hint="it does not go along: copy it (rsync -aHAX), or mount the same one on both hosts",
        )
    for mount in _records(config, "mounts"):
        options = mount.get("options")
        is_bind = mount.get("type") == "bind" or bool({"bind", "rbind"} & set(map(str, options or ())))  # type: ignore[call-overload]
        if is_bind and not os.path.exists(source := bundle / str(mount.get("source") or "")):
            yield EngineError(f"there is no {source} here, which is mounted on {mount.get('destination')}")
    for kind, path in _namespaces(config):
        if not os.path.exists(path):
            hint = "ip netns add" if kind == "network" else None
            yield EngineError(f"there is no {kind} namespace {path} here", hint=hint)


def _of_groups(path: str, name: str) -> Iterator[TorporError]:
    """Two hosts may be one kernel: a container of the same name is in the same groups there, and takes them away."""
    yard = Yard()
    for member in membership.read("/proc/self/cgroup"):
        wanted = path or name
        if ":" in wanted or (not wanted.startswith("/") and member.hierarchy == model.V2 and not path):
            continue  # systemd's
        group = wanted if wanted.startswith("/") else f"{member.path.rstrip('/')}/{wanted}"
        with suppress(OSError, TorporError):
            with OwnedFd(yard.open_dir(member.hierarchy, group)) as directory:
                is_used = _is_used(f"/proc/self/fd/{directory.fileno()}")
            if is_used:
                yield EngineError(
                    f"the control group {model.describe_group(member.hierarchy, group)} is in use here",
                    hint='--name calls the one that comes otherwise; or another "cgroupsPath" in the bundle',
                )
                return


def _is_used(group: str) -> bool:
    """Whether somebody is in it, whom ``cgroup.procs`` does not show where he is in another pid namespace."""
    with suppress(OSError):
        return int(read_bytes(f"{group}/pids.current")) > 0
    with suppress(OSError):
        return b"populated 1" in read_bytes(f"{group}/cgroup.events")
    return read_bytes(f"{group}/cgroup.procs") != b""
