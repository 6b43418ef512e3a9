"""The network that a migration has left locked here while its container sleeps: whoever wakes that lets it go.

A container's own network ends with it.  A pod's, and one that a bundle names, stay, and are held back until it is known
where the container runs.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from torpor.base.fds import OwnedFd
from torpor.containers.commands import run
from torpor.containers.model import Container
from torpor.images import kinds
from torpor.images.errors import ImageMissing
from torpor.images.store import load_one
from torpor.images.stores.opening import open_store
from torpor.migrate import held_network
from torpor.objects.files.socket import net_lock


def table_of(images: Path) -> str:
    """What the migration that made the *images* holds it back by; "" where there are none.  ImageError."""
    try:
        with open_store(images, "r") as store:
            return net_lock.table_of(load_one(store, kinds.INVENTORY).dump_criu_run_id)
    except ImageMissing:
        return ""


def let_go(container: Container, table: str) -> None:
    """*container*, which had been locked in by *table*, runs again: its neighbours are told of its addresses."""
    if not table:
        return
    with OwnedFd(os.open(f"/proc/{container.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as network:
        if held_network.is_held(network.fileno(), table):
            held_network.let_go(network.fileno(), table)


def shares_shm(container: Container, table: str) -> bool:
    """Whether a container of Podman sleeps in a network that is held back, and its /dev/shm is that of others there."""
    config = json.loads(run("podman", "container", "inspect", container.id))[0].get("HostConfig") or {}
    holder = str(config.get("NetworkMode", "")).removeprefix("container:")
    if not table or config.get("IpcMode") != f"container:{holder}":
        return False
    pid = int(run("podman", "container", "inspect", "--format", "{{.State.Pid}}", holder))
    if not pid:
        return False
    with OwnedFd(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as network:
        return held_network.is_held(network.fileno(), table)
