"""Checkpoint archives made in a test: of honest contents, and of hostile ones."""

import io
import json
import tarfile
from collections.abc import Iterable

from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.pagemap import PE_PRESENT, PageRun, store_pagemap
from torpor.images.store import store_all, store_one
from torpor.images.stores.memory import MemStore
from unit.images.filling import fill

ARGUMENTS = b"/bin/server\0--port\x001\0"
ENVIRONMENT = b"HOME=/\0SECRET=x\0"
ARG_START = 0x7FFF0000_0123
ID = "ab" * 32


def images() -> dict[str, bytes]:
    """One process called server, with a descriptor, a listening socket and two pages of memory."""
    store = MemStore()
    ids = m.task_kobj_ids_entry(vm_id=1, files_id=2, fs_id=3, sighand_id=4, pid_ns_id=5, net_ns_id=6)
    store_one(store, kinds.INVENTORY, m.inventory_entry(img_version=2, root_ids=ids))
    store_one(store, kinds.PSTREE, m.pstree_entry(pid=1, ppid=0, pgid=1, sid=1, threads=[1]))
    core = m.core_entry(mtype=m.core_entry.X86_64)
    fill(core, 1)
    core.tc.task_state, core.tc.comm = 1, "server"
    store_one(store, kinds.CORE, core, 1)
    store_one(store, kinds.IDS, ids, 1)
    store_one(store, kinds.MM, _mm(), 1)
    store_pagemap(store, 1, 1, [PageRun(ARG_START & ~0xFFF, 2, PE_PRESENT)])
    page = bytearray(8192)
    strings = ARGUMENTS + ENVIRONMENT
    page[ARG_START & 0xFFF : (ARG_START & 0xFFF) + len(strings)] = strings
    store.images["pages-1.img"] = page
    store_all(store, kinds.FILES, [_regular(1, "/bin/server"), _regular(2, "/data")])
    store_all(store, kinds.FDINFO, [m.fdinfo_entry(id=2, flags=0, type=m.fd_types.REG, fd=3)], 2)
    return {name: bytes(data) for name, data in store.images.items()}


def _mm() -> m.mm_entry:
    mm = m.mm_entry(exe_file_id=1)
    for field in mm.DESCRIPTOR.fields:
        if field.name.startswith("mm_") and field.name != "mm_saved_auxv":
            setattr(mm, field.name, 0)
    mm.mm_arg_start, mm.mm_arg_end = ARG_START, ARG_START + len(ARGUMENTS)
    mm.mm_env_start, mm.mm_env_end = mm.mm_arg_end, mm.mm_arg_end + len(ENVIRONMENT)
    return mm


def _regular(number: int, name: str) -> m.file_entry:
    regular = m.reg_file_entry(id=number, flags=0, pos=0, fown=m.fown_entry(uid=0, euid=0, signum=0, pid_type=0, pid=0))
    regular.name = name
    return m.file_entry(type=m.fd_types.REG, id=number, reg=regular)


CONFIG = {
    "id": ID,
    "name": "web",
    "rootfsImageName": "localhost/server:latest",
    "rootfsImageID": "cd" * 32,
    "runtime": "runc",
    "createdTime": "2026-01-02T03:04:05Z",
    "namedVolumes": [{"volumeName": "data", "dest": "/data"}],
    "newPortMappings": [{"host_port": 8080, "container_port": 80, "protocol": "tcp", "range": 1}],
}
SPEC = {
    "hostname": "box",
    "process": {"args": ["/bin/server", "--port", "1"]},
    "annotations": {"io.container.manager": "libpod"},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/etc/app", "type": "bind", "source": "/srv/app", "options": ["ro"]},
    ],
}
NETWORK = {
    "podman": {
        "interfaces": {
            "eth0": {
                "subnets": [{"ipnet": "10.88.0.7/16", "gateway": "10.88.0.1"}],
                "mac_address": "02:00:00:00:00:07",
            }
        }
    }
}


def members() -> list[tuple[str, bytes]]:
    """What Podman's archive of such a container holds, in its order."""
    diff = tar([("etc/motd", b"changed"), ("etc/new", b"")])
    return [
        ("config.dump", json.dumps(CONFIG).encode()),
        ("spec.dump", json.dumps(SPEC).encode()),
        ("network.status", json.dumps(NETWORK).encode()),
        ("rootfs-diff.tar", diff),
        ("deleted.files", b'["/etc/old"]'),
        ("volumes/data.tar", bytes(1536)),
        *[(f"checkpoint/{name}", data) for name, data in sorted(images().items())],
    ]


def tar(entries: Iterable[tuple[str, bytes]]) -> bytes:
    """A tar archive of these files, whatever their names."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()
