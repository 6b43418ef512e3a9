"""/dev/net/tun, attached to a tun or tap device or not.

Kernel view
    TUNGETIFF names the device and says whether this queue is detached; SIOCGSKNS gives its network namespace.
Image
    ``tunfile_entry``, and a ``reg_file_entry`` of the same id.  The device is one of the namespace's interfaces.
Restore
    Opened by its name in the namespace, then attached by TUNSETIFF.
Limits
    A device in a network namespace that is not the tree's own is refused: it would stay here, in use.  Packets that
    were not read yet are lost, as packets may be.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct

from torpor.base.errors import RestoreError
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import iter_entries
from torpor.kernel.uapi.fcntl import O_PATH
from torpor.kernel.uapi.if_tun import IFF_DETACH_QUEUE, IFF_PERSIST, TUNSETPERSIST, TUNSETQUEUE
from torpor.objects.files import fown, regular
from torpor.objects.files.model import FileKind, OpenFile
from torpor.objects.files.networks import Networks, in_network
from torpor.objects.files.table import TUN
from torpor.objects.ns.net import tun
from torpor.objects.session import DumpContext, DumpStage, RestoreContext


def matches(file: OpenFile) -> bool:
    """By the device number."""
    return _is_tun(file.stat) and not file.flags & O_PATH


def _is_tun(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == TUN


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Fill in ``entry.tunf`` and the file's name: the device it is attached to, if any.  RefusedError (see above)."""
    tunf = entry.tunf
    tunf.id, tunf.ns_id = entry.id, context.part(Networks).id_of_device(file)
    named = context.files.new_twin(entry, m.fd_types.REG).reg
    named.id, named.flags, named.pos, named.name = entry.id, file.flags, 0, file.target
    named.mode = file.stat.st_mode
    fown.fill(named.fown, file)
    attached = tun.device_of(file.fd)
    if attached is None:
        return
    name, flags = attached
    tunf.netdev = name
    if flags & IFF_DETACH_QUEUE:
        tunf.detached = True
    devices = context.part(tun.Devices)
    ident = tunf.ns_id
    devices.seen[ident, name] = tun.look(file.fd, name, flags)
    context.at(DumpStage.COMPLETE, lambda: _check_carried(file, (ident, name), devices))


def _check_carried(file: OpenFile, device: tuple[int, str], devices: tun.Devices) -> None:
    if device not in devices.carried:
        raise file.refuse(
            f"the tun device {device[1]} is in a network namespace that is not the tree's own",
            hint="run the program in a network namespace of its own, or close the device",
        )


def restore(entry: m.file_entry, context: RestoreContext) -> int:
    """Open it, and attach it."""
    tunf = entry.tunf
    if not entry.HasField("reg"):
        raise RestoreError(f"files.img: tun file {entry.id} has no name")
    fd = in_network(context, tunf.ns_id, lambda: regular.restore(entry, context, _is_tun))
    if not tunf.HasField("netdev"):
        return fd
    try:
        flags = _flags_of(tunf, context)
        tun.attach(fd, tunf.netdev, flags)
        if tunf.detached:
            fcntl.ioctl(fd, TUNSETQUEUE, struct.pack("16sH22x", b"", IFF_DETACH_QUEUE))
        if not flags & IFF_PERSIST:
            fcntl.ioctl(fd, TUNSETPERSIST, 0)
    except OSError as error:
        os.close(fd)
        raise RestoreError(f"tun file {entry.id} cannot be attached to {tunf.netdev}: {error.strerror}") from error
    except BaseException:
        os.close(fd)
        raise
    return fd


def _flags_of(tunf: m.tunfile_entry, context: RestoreContext) -> int:
    """The device's."""
    ident = tunf.ns_id or context.processes[0].ids.net_ns_id
    if context.store.exists(kinds.NETDEV.file_name(ident)):
        for each in iter_entries(context.store, kinds.NETDEV, ident):
            if each.message.name == tunf.netdev and each.message.HasField("tun"):
                return each.message.tun.flags
    raise RestoreError(f"the images have no tun device {tunf.netdev}")


KIND = FileKind("tun file", m.fd_types.TUNF, matches, dump, restore)
