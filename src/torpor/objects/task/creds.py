"""Credentials of a thread: ids, groups, five capability sets, securebits, no_new_privs, parent-death signal.

Kernel view
    ``/proc/PID/task/TID/status``; securebits and parent-death signal only by prctl inside the thread.
Image
    ``creds_entry`` in ``thread_core_entry``, sets as two 32-bit words each; ``pdeath_sig`` beside it.  Ids are those
    inside of the task's user namespace.
Restore
    securebits with KEEP_CAPS, groups, ids, bounding set, capset, ambient set, then the securebits as they were.  The
    order is the kernel's: dropping the bounding set needs CAP_SETPCAP, ambient needs permitted and inheritable.
    Nothing at all where the puppet is that already.  The parent-death signal comes last: a change of credentials
    clears it.  Groups are left alone where they are right: in a user namespace it can be forbidden to set them.
Limits
    The root of the tree does not get its parent-death signal: it would die as the restore ends.
    Capabilities that we do not have ourselves cannot be given; keyrings and security labels are not carried.
    A user or group id of the thread's own that is not mapped into its user namespace is refused.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Collection

from torpor.base import log
from torpor.base.errors import RefusedError, RestoreError
from torpor.images import messages as m
from torpor.kernel.arch import nr
from torpor.kernel.idmap import IDENTITY, NO_ID, IdMaps
from torpor.kernel.procfs.status import Status
from torpor.kernel.syscall import syscall
from torpor.kernel.uapi.prctl import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_CAPBSET_DROP,
    PR_GET_PDEATHSIG,
    PR_GET_SECUREBITS,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    PR_SET_SECUREBITS,
)
from torpor.kernel.uapi.securebits import SECBIT_KEEP_CAPS, SECBIT_NO_SETUID_FIXUP
from torpor.objects.model import DumpThread, RestoreThread
from torpor.tracee.batch import Batch

_CAPABILITY_VERSION_3 = 0x20080522
_N_CAPS = 64
_CAP_SETPCAP = 1 << 8
_FEW = 64
#: By the lines of status that say who a task is.
_known: dict[str, tuple[IdMaps, m.creds_entry]] = {}


def look(thread: DumpThread) -> None:
    """Fill in ``creds``, as far as /proc tells."""
    found = _creds_of(thread.status, thread.process.idmaps)
    if not _is_mapped(found):
        check(thread.process.describe(), thread.status, thread.process.idmaps)
    thread.core.thread_core.creds.MergeFrom(found)


def ask(thread: DumpThread, batch: Batch) -> None:
    """Ask for the rest, and for ``pdeath_sig``."""
    bits = batch.call(nr.prctl, PR_GET_SECUREBITS)
    room = batch.out(4)
    batch.call(nr.prctl, PR_GET_PDEATHSIG, room)

    def collect() -> None:
        thread.core.thread_core.creds.secbits = bits.value
        if number := int.from_bytes(room.bytes(), "little"):
            thread.core.thread_core.pdeath_sig = number

    batch.then(collect)


def check(who: str, status: Status, idmaps: IdMaps) -> None:
    """RefusedError for a thread that its user namespace has no id for."""
    if not _is_mapped(_creds_of(status, idmaps)):
        raise RefusedError(
            f"{who} has a user or group id that its user namespace does not know",
            hint="checkpoint it once it has changed to one that is mapped (/proc/PID/uid_map, gid_map)",
        )


def _is_mapped(found: m.creds_entry) -> bool:
    users = (found.uid, found.euid, found.suid, found.fsuid)
    return NO_ID not in users and NO_ID not in (found.gid, found.egid, found.sgid, found.fsgid)


def fill(creds: m.creds_entry, status: Status, idmaps: IdMaps) -> None:
    """All but the securebits, which /proc does not tell."""
    creds.MergeFrom(_creds_of(status, idmaps))


def _creds_of(status: Status, idmaps: IdMaps) -> m.creds_entry:
    """The same, of which there are few different ones in a tree of thousands of threads."""
    identity = status.identity
    known = _known.get(identity)
    if known is None or known[0] is not idmaps:
        if len(_known) == _FEW:
            _known.clear()
        known = _known[identity] = (idmaps, _read(status, idmaps))
    return known[1]


def _read(status: Status, idmaps: IdMaps) -> m.creds_entry:
    creds = m.creds_entry()
    creds.uid, creds.euid, creds.suid, creds.fsuid = map(idmaps.users.inside, status.uids)
    creds.gid, creds.egid, creds.sgid, creds.fsgid = map(idmaps.groups.inside, status.gids)
    groups = [idmaps.groups.inside(group) for group in status.groups]
    creds.groups.extend(group for group in groups if group != NO_ID)
    if NO_ID in groups:
        creds.torpor_outer_groups.extend(status.groups)
    for words, value in (
        (creds.cap_inh, status.cap_inheritable),
        (creds.cap_prm, status.cap_permitted),
        (creds.cap_eff, status.cap_effective),
        (creds.cap_bnd, status.cap_bounding),
        (creds.cap_amb, status.cap_ambient),
    ):
        words.extend((value & 0xFFFFFFFF, value >> 32))
    if status.no_new_privs:
        creds.no_new_privs = 1
    return creds


def restore(core: m.core_entry, current: Status, idmaps: IdMaps, batch: Batch) -> None:
    """Become who the image says.  *current* is the puppet's status: what it has can be dropped.

    All privileges are kept until the last capset, so that nothing before it can fail for want of one.
    """
    creds = core.thread_core.creds
    if _is_already(creds, current, idmaps):
        return
    if not current.cap_effective & _CAP_SETPCAP:
        _restore_unprivileged(creds, current, idmaps, batch)
        return
    wanted = [_set_of(words) for words in (creds.cap_eff, creds.cap_prm, creds.cap_inh)]
    bounding, ambient = _set_of(creds.cap_bnd), _set_of(creds.cap_amb)
    batch.call(nr.prctl, PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS)
    restore_ids(creds, current, idmaps, batch)
    header = batch.data(struct.pack("<Ii", _CAPABILITY_VERSION_3, 0))
    everything = current.cap_permitted
    batch.call(nr.capset, header, batch.data(_pack_sets(everything, everything, wanted[2])))
    batch.call(nr.prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in range(_N_CAPS):
        if ambient & 1 << capability:
            batch.call(nr.prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)
        if current.cap_bounding & ~bounding & 1 << capability:
            batch.call(nr.prctl, PR_CAPBSET_DROP, capability)
    batch.call(nr.prctl, PR_SET_SECUREBITS, creds.secbits)
    batch.call(nr.capset, header, batch.data(_pack_sets(*wanted)))


def _restore_unprivileged(creds: m.creds_entry, current: Status, idmaps: IdMaps, batch: Batch) -> None:
    """Become somebody who has the same ids and fewer capabilities, which everybody may.

    RestoreError for anybody else.
    """
    permitted = _set_of(creds.cap_prm)
    if not _has_ids(creds, current, idmaps) or permitted & ~current.cap_permitted:
        raise RestoreError(
            f"user {creds.uid}, group {creds.gid} and capabilities {permitted:#x} are not ours to give",
            hint="restore as that user, or as root",
        )
    if _set_of(creds.cap_bnd) != current.cap_bounding:
        log.warn("without CAP_SETPCAP the capability bounding set stays ours")
    inheritable = _set_of(creds.cap_inh) & (current.cap_inheritable | current.cap_permitted)
    batch.call(nr.prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = batch.data(struct.pack("<Ii", _CAPABILITY_VERSION_3, 0))
    batch.call(nr.capset, header, batch.data(_pack_sets(_set_of(creds.cap_eff), permitted, inheritable)))


def capabilities_of(core: m.core_entry) -> int:
    """All that a thread is to have, or to be able to get by executing a program that has them."""
    creds = core.thread_core.creds
    return _set_of(creds.cap_eff) | _set_of(creds.cap_prm) | _set_of(creds.cap_inh) | _set_of(creds.cap_amb)


def permitted_of(core: m.core_entry) -> int:
    """What a thread has, or can have by asking for it."""
    creds = core.thread_core.creds
    return _set_of(creds.cap_eff) | _set_of(creds.cap_prm)


def restore_pdeath_signal(thread: RestoreThread, batch: Batch) -> None:
    """Ask for the signal again."""
    number = thread.core.thread_core.pdeath_sig
    if number and thread.process.parent is None:
        log.warn(f"pid {thread.process.ns_pid} does not get its parent-death signal: its parent is we, and we end")
    elif number:
        batch.call(nr.prctl, PR_SET_PDEATHSIG, number)


def _is_already(creds: m.creds_entry, current: Status, idmaps: IdMaps) -> bool:
    """Whether a puppet, which has our own securebits, is who the image says: true of most threads."""
    return (
        _has_ids(creds, current, idmaps)
        and _set_of(creds.cap_inh) == current.cap_inheritable
        and _set_of(creds.cap_prm) == current.cap_permitted
        and _set_of(creds.cap_eff) == current.cap_effective
        and _set_of(creds.cap_bnd) == current.cap_bounding
        and _set_of(creds.cap_amb) == current.cap_ambient
        and creds.secbits == (_own_securebits() if idmaps is IDENTITY else 0)
    )


def _has_ids(creds: m.creds_entry, current: Status, idmaps: IdMaps) -> bool:
    users = (creds.uid, creds.euid, creds.suid, creds.fsuid)
    groups = (creds.gid, creds.egid, creds.sgid, creds.fsgid)
    return (
        tuple(map(idmaps.users.outside, users)) == current.uids
        and tuple(map(idmaps.groups.outside, groups)) == current.gids
        and outer_groups(creds, idmaps) == current.groups
    )


def outer_groups(creds: m.creds_entry, idmaps: IdMaps) -> tuple[int, ...]:
    """The supplementary groups in ids of ours."""
    return tuple(creds.torpor_outer_groups or map(idmaps.groups.outside, creds.groups))


@functools.cache
def _own_securebits() -> int:
    return syscall("prctl(PR_GET_SECUREBITS)", nr.prctl, PR_GET_SECUREBITS)


def restore_ids(creds: m.creds_entry, current: Status, idmaps: IdMaps, batch: Batch) -> None:
    """Groups, group ids, user ids."""
    if outer_groups(creds, idmaps) != current.groups:
        groups = batch.data(struct.pack(f"<{len(creds.groups)}I", *creds.groups))
        batch.call(nr.setgroups, len(creds.groups), groups)
    batch.call(nr.setresgid, creds.gid, creds.egid, creds.sgid)
    batch.call(nr.setfsgid, creds.fsgid)
    batch.call(nr.setresuid, creds.uid, creds.euid, creds.suid)
    batch.call(nr.setfsuid, creds.fsuid)


def _pack_sets(effective: int, permitted: int, inheritable: int) -> bytes:
    low, high = (
        tuple(value >> shift & 0xFFFFFFFF for value in (effective, permitted, inheritable)) for shift in (0, 32)
    )
    return struct.pack("<6I", *low, *high)


def _set_of(words: Collection[int]) -> int:
    return int.from_bytes(struct.pack(f"<{len(words)}I", *words), "little")


def restore_no_new_privs(core: m.core_entry, batch: Batch) -> None:
    """The flag that cannot be taken back; after everything that needs privileges."""
    if core.thread_core.creds.no_new_privs:
        batch.call(nr.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
