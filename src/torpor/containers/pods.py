"""Pods of Podman: which there are, and what of one is told so that another host makes the same.

A pod's namespaces are those of its first container (infra), which does nothing but hold them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from torpor.base.errors import RefusedError
from torpor.base.fds import OwnedFd
from torpor.base.records import dataclass
from torpor.containers.commands import command_of, run
from torpor.containers.model import LIST_TIMEOUT_S, Container
from torpor.containers.names import PODMAN
from torpor.kernel import sysvipc
from torpor.kernel.namespaces import CLONE_NEWIPC, inside
from torpor.migrate.link import Message

#: What names one on the command line.
PREFIX = "pod:"
#: Namespaces that the containers of a pod that is moved may share.  Of a pid namespace the numbers would have to be
#: free in one that others live in already.
_SHARED = frozenset({"net", "ipc", "uts"})
#: What podman pod inspect says that is carried, or needs not be: anything else that is there is refused.
_KNOWN = frozenset(
    {
        "Id", "Name", "Namespace", "Created", "CreateCommand", "ExitPolicy", "State", "Hostname", "Labels",
        "CreateCgroup", "CgroupParent", "CgroupPath", "CreateInfra", "InfraContainerID", "InfraConfig",
        "SharedNamespaces", "NumContainers", "Containers", "LockNumber",
    }
)  # fmt: skip
_KNOWN_OF_INFRA = frozenset(
    {
        "PortBindings", "NoManageResolvConf", "DNSServer", "DNSSearch", "DNSOption", "NoManageHosts", "HostAdd",
        "Networks", "StaticIP", "StaticMAC", "pid_ns", "userns", "uts_ns",
    }
)  # fmt: skip
#: Options of podman pod create of which the two above tell, or which say nothing of the pod.
_CARRIED = frozenset(
    {
        "name", "n", "hostname", "share", "label", "l", "publish", "p", "network", "net", "infra", "infra-name",
        "infra-image", "dns", "dns-opt", "dns-option", "dns-search", "add-host", "no-hosts", "exit-policy", "ip", "ip6",
        "mac-address", "pod-id-file", "replace", "label-file", "infra-conmon-pidfile",
    }
)  # fmt: skip
#: As Podman has names.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_OWN_PAUSE = "localhost/podman-pause:"
_MAX_WORDS, _MAX_WORD = 512, 4096
#: The options that the destination takes from the source, each with a value.
_CREATE = frozenset(
    {
        "hostname", "share", "label", "publish", "network", "infra-name", "infra-image", "dns", "dns-option",
        "dns-search", "add-host", "no-hosts", "exit-policy",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pod:
    """One that runs: *members* without the first container, *infra*; *words*: options of ``podman pod create``."""

    name: str
    id: str
    infra: Container
    members: list[Container]
    shares: list[str]
    words: list[tuple[str, str]]
    networks: list[str]

    @property
    def label(self) -> str:
        """How a user names it."""
        return f"{PREFIX}{self.name}"


def names() -> list[str]:
    """Those of the pods of which something runs here."""
    if not command_of("podman"):
        return []
    found = json.loads(run("podman", "pod", "ps", "--format", "json", timeout_s=LIST_TIMEOUT_S) or "[]") or []
    return [str(each["Name"]) for each in found if str(each.get("Status")) in ("Running", "Degraded")]


def is_there(name: str) -> bool:
    """Whether Podman here has a pod called so."""
    if not command_of("podman"):
        return False
    # podman pod exists takes a name for the beginning of an id as well.
    line = ("pod", "ps", "--filter", f"name=^{re.escape(name)}$", "--format", "json")
    found = json.loads(run("podman", *line, timeout_s=LIST_TIMEOUT_S) or "[]") or []
    return any(str(each["Name"]) == name for each in found)


def find(name: str, containers: list[Container]) -> Pod:
    """The pod called *name*; *containers* are Podman's.  RefusedError where it cannot be moved; EngineError."""
    label = f"{PREFIX}{name}"
    if os.geteuid():
        raise RefusedError(f"{label}: pods of users without privileges are not moved", hint="as root, a pod of root's")
    found = json.loads(run("podman", "pod", "inspect", name))
    told = found[0] if isinstance(found, list) else found
    infra_id = str(told.get("InfraContainerID") or "")
    inside_it = {str(each["Id"]): str(each["Name"]) for each in told.get("Containers") or ()}
    by_id = {container.id: container for container in containers}
    ids = [ident for ident in inside_it if ident in by_id]
    shares = sorted(str(each) for each in told.get("SharedNamespaces") or ())
    if infra_id not in ids or "net" not in shares:
        raise RefusedError(f"{label} has no network of its own: its containers are to be moved one by one")
    if others := sorted(set(shares) - _SHARED):
        raise RefusedError(
            f"{label} shares {', '.join(others)} among its containers, and a pod is moved that shares "
            f"{', '.join(sorted(_SHARED))}",
            hint="podman pod create --share ipc,net,uts",
        )
    infra = json.loads(run("podman", "container", "inspect", infra_id))[0]
    _check(label, told, infra)
    members = [by_id[ident] for ident in ids if ident != infra_id]
    if not members:
        raise RefusedError(f"there is nothing in {label}")
    for member in [by_id[infra_id], *members]:
        if member.state != "running":
            wakes = f"torpor restore {label} --tcp-established wakes what a migration has left asleep of it"
            raise RefusedError(
                f"{member.label} of {label} does not run ({member.state})",
                hint=wakes if PODMAN.is_asleep(member) else f"podman rm {member.name}, or start it",
            )
    networks, words = _networks_of(label, infra)
    words += [*_words_of(told, infra), ("share", ",".join(shares))]
    return Pod(str(told["Name"]), str(told["Id"]), by_id[infra_id], members, shares, words, networks)


def check_member(pod: Pod, member: Container, told: dict[str, Any]) -> None:
    """RefusedError where a container shares with its pod something else than the others do; *told* is its inspect."""
    config = told.get("HostConfig") or {}
    for namespace, key in (("net", "NetworkMode"), ("ipc", "IpcMode"), ("uts", "UTSMode"), ("pid", "PidMode")):
        mode = str(config.get(key, ""))
        wanted = f"container:{pod.infra.id}" if namespace in pod.shares else ("", "private", "shareable")
        if mode != wanted and mode not in wanted:
            raise RefusedError(
                f"{member.label} has another {namespace} namespace than {pod.label} says ({mode or 'private'})",
                hint="only pods whose containers share the same are moved",
            )
    if needed := [str(each) for each in told.get("Dependencies") or () if each != pod.infra.id]:
        raise RefusedError(f"{member.label} depends on other containers than its pod's first ({needed[0][:12]})")
    if config.get("AutoRemove"):
        raise RefusedError(
            f"podman forgets {member.label} as it ends (--rm): {pod.label} could not be brought back here",
            hint="run it without --rm",
        )


def check_shared(pod: Pod) -> None:
    """RefusedError where there is something in the IPC namespace that several share, which nobody's images have."""
    if "ipc" not in pod.shares:
        return
    with OwnedFd(os.open(f"/proc/{pod.infra.pid}/ns/ipc", os.O_RDONLY | os.O_CLOEXEC)) as namespace:
        found = inside(
            namespace.fileno(), CLONE_NEWIPC, lambda: [kind for kind in ("shm", "msg", "sem") if _has_any(kind)]
        )
    for member in pod.members:
        with suppress(OSError):
            found += ["mqueue"] if os.listdir(f"/proc/{member.pid}/root/dev/mqueue") else []
    if found:
        raise RefusedError(
            f"the containers of {pod.label} share System V objects or message queues, which are not carried: "
            f"{', '.join(sorted(set(found)))}",
            hint="only what is in /dev/shm is",
        )


def _has_any(kind: str) -> bool:
    return any(True for _ in sysvipc.read_objects(kind))


def _check(label: str, told: dict[str, Any], infra: dict[str, Any]) -> None:
    """RefusedError for a pod that has what its twin on the other host would not."""
    config = told.get("InfraConfig") or {}
    own = {key for key, value in told.items() if value and key not in _KNOWN}
    own |= {key for key, value in config.items() if value and key not in _KNOWN_OF_INFRA}
    for key, plain in (("pid_ns", "private"), ("userns", "host"), ("uts_ns", "private")):
        if config.get(key) not in (None, "", plain):
            own.add(key)
    own |= {f"--{word}" for word in _options_of(told.get("CreateCommand") or [])} - {f"--{word}" for word in _CARRIED}
    if infra.get("Mounts"):
        own.add("--volume")
    if own:
        raise RefusedError(f"{label} has what is not carried to another host: {', '.join(sorted(own))}")


def _options_of(line: list[str]) -> Iterator[str]:
    """Names of the options with which it was made, where that is known."""
    if line[1:3] != ["pod", "create"]:
        return
    for word in line[3:]:
        if word.startswith("--"):
            yield word[2:].partition("=")[0]
        elif word.startswith("-") and len(word) > 1:
            yield word[1]


def _networks_of(label: str, infra: dict[str, Any]) -> tuple[list[str], list[tuple[str, str]]]:
    """Their names, and options for the same ones with the same addresses."""
    found = (infra.get("NetworkSettings") or {}).get("Networks") or {}
    mode = str((infra.get("HostConfig") or {}).get("NetworkMode", ""))
    if not found:
        if mode != "none":
            raise RefusedError(f"{label} is in a network that does not move along ({mode or 'unknown'})")
        return [], [("network", "none")]
    words = []
    for name, about in found.items():
        known = (("ip", "IPAddress"), ("ip", "GlobalIPv6Address"), ("mac", "MacAddress"))
        options = [f"{word}={about[key]}" for word, key in known if about.get(key)]
        words.append(("network", f"{name}:{','.join(options)}" if options else str(name)))
    return list(found), words


def _words_of(told: dict[str, Any], infra: dict[str, Any]) -> Iterator[tuple[str, str]]:
    config = told.get("InfraConfig") or {}
    if told.get("Hostname"):
        yield "hostname", str(told["Hostname"])
    if told.get("ExitPolicy"):
        yield "exit-policy", str(told["ExitPolicy"])
    for key, value in (told.get("Labels") or {}).items():
        yield "label", f"{key}={value}"
    for port, places in (config.get("PortBindings") or {}).items():
        for place in places or ():
            address = str(place.get("HostIp") or "")
            address = f"[{address}]" if ":" in address else address
            yield "publish", f"{address}{':' if address else ''}{place.get('HostPort', '')}:{port}"
    for key, word in (
        ("DNSServer", "dns"), ("DNSOption", "dns-option"), ("DNSSearch", "dns-search"), ("HostAdd", "add-host"),
    ):  # fmt: skip
        for value in config.get(key) or ():
            yield word, str(value)
    if config.get("NoManageHosts"):
        yield "no-hosts", "true"
    name, image = str(infra.get("Name", "")), str(infra.get("ImageName", ""))
    if name != f"{str(told['Id'])[:12]}-infra":
        yield "infra-name", name
    if image and not image.startswith(_OWN_PAUSE):
        yield "infra-image", image


# -- what another host is told -----------------------------------------------------------------------------------------


def fields(pod: Pod) -> dict[str, object]:
    """What an offer says of it."""
    return {
        "pod_words": [list(word) for word in pod.words], "networks": pod.networks, "members": len(pod.members),
        "shares_ipc": "ipc" in pod.shares,
    }  # fmt: skip


def create_line(name: str, message: Message) -> list[str]:
    """What makes the pod that *message* offers; MigrationError where that makes no sense."""
    if not _NAME.fullmatch(name):
        message.refuse("called")
    line = ["pod", "create", f"--name={name}"]
    for entry in message.entries("pod_words", _MAX_WORDS):
        match entry:
            case [str(word), str(value)] if word in _CREATE and len(value) <= _MAX_WORD and "\0" not in value:
                line.append(f"--{word}={value}")
            case _:
                message.refuse("pod_words")
    return line


def image_of(line: list[str]) -> str:
    """The image of the first container, if it is not Podman's own."""
    return next((word.partition("=")[2] for word in line if word.startswith("--infra-image=")), "")
