"""A checkpointed container in lines of text, for ``torpor inspect``."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import join

from torpor.cli.progress import size, time_of
from torpor.containers.overview import Overview

#: Files that an engine makes for each container, and makes again.
_OF_THE_ENGINE = (
    "/dev/shm", "/run/.containerenv", "/etc/hostname", "/etc/resolv.conf", "/etc/hosts", "/run/secrets",
)  # fmt: skip


def lines(overview: Overview, *, with_files: bool, with_mounts: bool) -> Iterator[str]:
    """What there is to say, line by line."""
    yield "CONTAINER"
    for title, text in _rows(overview):
        if text:
            yield f"  {title:13} {text}"
    for network in overview.networks:
        gateways = f", gateway {', '.join(network.gateways)}" if network.gateways else ""
        addresses = ", ".join(network.addresses) or "no address"
        yield f"  {'network':13} {network.name}: {network.interface} {addresses}{gateways}, {network.mac_address}"
    for volume in overview.volumes:
        there = size(volume.size_bytes) if volume.size_bytes is not None else "not in the archive"
        yield f"  {'volume':13} {volume.name} on {volume.destination or '?'}, {there}"
    made = {*_OF_THE_ENGINE, *(volume.destination for volume in overview.volumes)}
    for mount in (mount for mount in overview.mounts if mount.type == "bind" and mount.destination not in made):
        yield f"  {'bind mount':13} {mount.source} on {mount.destination}, must be there"
    if with_files:
        yield from (f"  {'changed':13} {path}" for path in overview.changed_files)
        yield from (f"  {'deleted':13} {path}" for path in overview.deleted_files)
    if with_mounts:
        yield ""
        yield "MOUNTS"
        for mount in overview.mounts:
            yield f"  {mount.destination}: {mount.type} from {mount.source} ({','.join(mount.options)})"
        yield ""
        yield "ANNOTATIONS"
        yield from (f"  {key}: {value}" for key, value in overview.annotations)


def _rows(overview: Overview) -> Iterator[tuple[str, str]]:
    yield "name", overview.name
    yield "id", overview.id
    yield "image", f"{overview.image} ({overview.image_id[:12]})" if overview.image_id else overview.image
    yield "command", join(overview.command)
    yield "engine", ", runtime ".join(text for text in (overview.engine or "unknown", overview.runtime) if text)
    yield "created", overview.created
    yield "checkpointed", overview.checkpointed
    yield "hostname", overview.hostname
    yield "network mode", "" if overview.networks else overview.network_mode
    yield "ports", ", ".join(overview.ports)
    if overview.rootfs_diff_bytes is not None:
        deleted = f", {len(overview.deleted_files)} deleted" if overview.deleted_files else ""
        yield "root files", f"{overview.n_changed_files} changed ({size(overview.rootfs_diff_bytes)}){deleted}"
    elif overview.deleted_files:
        yield "root files", f"{len(overview.deleted_files)} deleted"
    if (told := overview.statistics) is not None:
        yield (
            "stopped for",
            f"{time_of(told.frozen_us / 1e6)} ({time_of(told.freezing_us / 1e6)} to stop it, "
            f"{time_of(told.memdump_us / 1e6)} for memory), {told.pages_written} of {told.pages_scanned} pages written",
        )
