"""What a checkpoint's documents say of its container: config.dump and its companions, of whichever engine.

They may come from anybody, so nothing is taken for granted: what is missing or of another type than it should be is
empty here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from torpor.base.records import dataclass
from torpor.containers.archive import Archive
from torpor.images import kinds
from torpor.images.errors import ImageError, ImageMissing
from torpor.images.format import read_messages

_MANAGERS = {"libpod": "Podman", "cri-o": "CRI-O", "containerd": "containerd"}
_MAX_SECONDS = 253402300799  # the end of the year 9999, where datetime ends


@dataclass(frozen=True, slots=True)
class Network:
    """One interface: the network's name, the interface's, its addresses with prefix lengths, gateways."""

    name: str
    interface: str
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]
    mac_address: str


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume and where it is mounted; its size, None where it is not in the archive."""

    name: str
    destination: str
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One mount of the specification."""

    destination: str
    type: str
    source: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of the dump: times in microseconds, numbers of pages."""

    freezing_us: int
    frozen_us: int
    memdump_us: int
    memwrite_us: int
    pages_scanned: int
    pages_written: int


@dataclass(frozen=True, slots=True)
class Overview:
    """A checkpointed container.  Times are ISO 8601; what is not known is empty."""

    engine: str
    name: str
    id: str
    image: str
    image_id: str = ""
    runtime: str = ""
    hostname: str = ""
    command: tuple[str, ...] = ()
    created: str = ""
    checkpointed: str = ""
    network_mode: str = ""
    networks: tuple[Network, ...] = ()
    ports: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    mounts: tuple[MountPoint, ...] = ()
    rootfs_diff_bytes: int | None = None
    n_changed_files: int = 0
    changed_files: tuple[str, ...] = ()
    deleted_files: tuple[str, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    statistics: Statistics | None = None


def overview_of(archive: Archive) -> Overview:
    """What the documents of *archive* say."""
    config, spec = (_object(archive, name) for name in ("config.dump", "spec.dump"))
    annotations = {str(key): str(value) for key, value in _mapping(spec, "annotations").items()}
    mounts = tuple(_mount(entry) for entry in _list(spec, "mounts"))
    kubernetes = annotations.get("io.kubernetes.cri-o.ContainerName") or annotations.get("io.kubernetes.container.name")
    return Overview(
        engine=_engine(annotations, archive),
        name=_text(config, "name") or kubernetes or "",
        id=_text(config, "id"),
        image=_text(config, "rootfsImageName") or _text(config, "rootfsImage") or _text(config, "rootfsImageRef"),
        image_id=_text(config, "rootfsImageID") or _text(config, "rootfsImageRef"),
        runtime=_text(config, "runtime"),
        hostname=_text(spec, "hostname"),
        command=tuple(map(str, _list(_mapping(spec, "process"), "args") or _list(config, "command"))),
        created=_text(config, "createdTime"),
        checkpointed=_known(_text(config, "checkpointedTime")) or _time(archive.written),
        network_mode=_text(config, "networkMode"),
        networks=tuple(_networks(_object(archive, "network.status"))),
        ports=tuple(_port(entry) for entry in _list(config, "newPortMappings") or _list(config, "portMappings")),
        volumes=tuple(_volumes(config, archive)),
        mounts=mounts,
        rootfs_diff_bytes=archive.rootfs_diff_bytes,
        n_changed_files=archive.n_changes,
        changed_files=tuple(archive.changes),
        deleted_files=tuple(map(str, _array(archive, "deleted.files"))),
        annotations=tuple(sorted(annotations.items())),
        statistics=_statistics(archive),
    )


def name_in(documents: Mapping[str, bytes]) -> str | None:
    """The container's name in the documents that ``peek`` found; None if they are not of a container's checkpoint."""
    if "config.dump" not in documents:
        return None
    archive = Archive("config.dump", documents=dict(documents))
    return _text(_object(archive, "config.dump"), "name") or _text(_object(archive, "config.dump"), "id")


def reference_in(documents: Mapping[str, bytes]) -> str:
    """The name of the image that an exported archive holds; empty if it is none, or has none."""
    archive = Archive("index.json", documents=dict(documents))
    for manifest in _list(_object(archive, "index.json"), "manifests"):
        if name := _text(_mapping(manifest, "annotations"), "io.containerd.image.name"):
            return name
    return ""


def _engine(annotations: Mapping[str, str], archive: Archive) -> str:
    manager = annotations.get("io.container.manager", "")
    if manager in _MANAGERS:
        return _MANAGERS[manager]
    if "io.kubernetes.cri.container-type" in annotations or "status" in archive.documents:
        return "containerd"
    return manager


def _json(archive: Archive, name: str) -> object:
    if name not in archive.documents:
        return None
    try:
        return json.loads(archive.documents[name])
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{archive.path}: {name}: {error}") from None


def _object(archive: Archive, name: str) -> Mapping[str, object]:
    found = _json(archive, name)
    return found if isinstance(found, dict) else {}


def _array(archive: Archive, name: str) -> list[object]:
    found = _json(archive, name)
    return found if isinstance(found, list) else []


def _text(where: object, key: str) -> str:
    found = where.get(key) if isinstance(where, Mapping) else None
    return found if isinstance(found, str) else ""


def _mapping(where: object, key: str) -> Mapping[str, object]:
    found = where.get(key) if isinstance(where, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _list(where: object, key: str) -> list[object]:
    found = where.get(key) if isinstance(where, Mapping) else None
    return found if isinstance(found, list) else []


def _texts(where: object, key: str) -> tuple[str, ...]:
    return tuple(each for each in _list(where, key) if isinstance(each, str))


def _known(time: str) -> str:
    """Go's zero time is none."""
    return "" if time.startswith("0001-") else time


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat() if 0 < seconds <= _MAX_SECONDS else ""


def _mount(entry: object) -> MountPoint:
    return MountPoint(
        _text(entry, "destination"), _text(entry, "type"), _text(entry, "source"), _texts(entry, "options")
    )


def _networks(status: Mapping[str, object]) -> list[Network]:
    """network.status of netavark (network: interfaces: subnets); that of CNI has another form and tells less."""
    found = []
    for name, network in status.items():
        for interface, told in _mapping(network, "interfaces").items():
            subnets = _list(told, "subnets")
            addresses = tuple(text for subnet in subnets if (text := _text(subnet, "ipnet")))
            gateways = tuple(text for subnet in subnets if (text := _text(subnet, "gateway")))
            found.append(Network(str(name), str(interface), addresses, gateways, _text(told, "mac_address")))
    return found


def _port(entry: object) -> str:
    told = entry if isinstance(entry, Mapping) else {}
    host = f"{_text(told, 'host_ip')}:" if _text(told, "host_ip") else ""
    number = told.get("range")
    more = f"+{number - 1}" if isinstance(number, int) and number > 1 else ""
    protocol = _text(told, "protocol") or "tcp"
    return f"{host}{told.get('host_port', '?')}{more} to {told.get('container_port', '?')}{more}/{protocol}"


def _volumes(config: Mapping[str, object], archive: Archive) -> list[Volume]:
    sizes = dict(archive.volumes)
    named = {_text(entry, "volumeName"): _text(entry, "dest") for entry in _list(config, "namedVolumes")}
    return [Volume(name, named.get(name, ""), sizes.get(name)) for name in dict.fromkeys([*named, *sizes]) if name]


def _statistics(archive: Archive) -> Statistics | None:
    data = archive.documents.get("stats-dump")
    if data is None:
        return None
    import io

    try:
        (entry,) = read_messages(io.BytesIO(data), kinds.STATS, "stats-dump")
    except (ImageError, ImageMissing, ValueError):
        archive.remark("stats-dump makes no sense; it was passed over")
        return None
    told = entry.dump
    return Statistics(
        told.freezing_time, told.frozen_time, told.memdump_time, told.memwrite_time, told.pages_scanned,
        told.pages_written,
    )  # fmt: skip
