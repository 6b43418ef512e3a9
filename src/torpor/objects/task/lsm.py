"""Security labels of a thread: its AppArmor profile, or its SELinux context and the one for sockets that it makes.

Kernel view
    ``/proc/PID/task/TID/attr/current`` and ``sockcreate``.
Image
    ``creds_entry.lsm_profile`` and ``lsm_sockcreate``; ``inventory_entry.lsmtype`` says whose they are.  No profile
    stands for a task that AppArmor does not confine.
Restore
    The thread opens its own attribute while it may, and writes it when its credentials are set, before no_new_privs.  A
    process with threads can change its SELinux context only before it has them.
Limits
    Policies are not carried: a profile must be loaded on the destination, and is asked for before anything is made.
    Labels for the next program or for new files (attr/exec, attr/fscreate) and those of sockets are not carried.
"""

from __future__ import annotations

from collections.abc import Iterable

from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.kernel import lsm
from torpor.kernel.arch import nr
from torpor.kernel.uapi.fcntl import AT_FDCWD, O_WRONLY
from torpor.objects.model import DumpThread, RestoreProcess, RestoreThread
from torpor.tracee.batch import Batch, RemoteCallError

_TYPES = {"": m.lsmtype.NO_LSM, lsm.SELINUX: m.lsmtype.SELINUX, lsm.APPARMOR: m.lsmtype.APPARMOR}
_NAMES = {lsm.SELINUX: "SELinux", lsm.APPARMOR: "AppArmor", "": "no security module"}


def type_here() -> int:
    """The ``lsmtype`` of this machine."""
    return _TYPES[lsm.active()]


def dump(thread: DumpThread) -> None:
    """Fill in the labels, if this kernel gives any."""
    active = lsm.active()
    if not active:
        return
    creds, pid = thread.core.thread_core.creds, thread.process.pid
    label = lsm.read_label(pid, thread.tid, "current")
    if active == lsm.APPARMOR:
        label = lsm.parse_profile(label)
    elif sockets := lsm.read_label(pid, thread.tid, "sockcreate"):
        creds.lsm_sockcreate = sockets
    if label:
        creds.lsm_profile = label


def plan(processes: Iterable[RestoreProcess], image_type: int, wanted: str) -> None:
    """Note what label each thread is to get.  *wanted*: ``--lsm-profile``, ``TYPE:LABEL``.

    RestoreError where this kernel has no such labels.
    """
    other = _parse(wanted)
    for process in processes:
        for thread in process.threads:
            creds = thread.core.thread_core.creds
            if not creds.lsm_profile:
                continue
            if not other and image_type != type_here():
                raise RestoreError(
                    f"pid {process.ns_pid} has the {_name_of(image_type)} label {creds.lsm_profile}, and here is "
                    f"{_NAMES[lsm.active()]}",
                    hint="restore where that is active, or name a label of this machine's: --lsm-profile TYPE:LABEL",
                )
            thread.label = _known(other or creds.lsm_profile, process)
            thread.socket_label = creds.lsm_sockcreate


def _parse(wanted: str) -> str:
    if not wanted:
        return ""
    kind, _, label = wanted.partition(":")
    if kind not in (lsm.APPARMOR, lsm.SELINUX) or not label:
        raise RestoreError(f"--lsm-profile {wanted}: neither apparmor:PROFILE nor selinux:CONTEXT")
    if kind != lsm.active():
        raise RestoreError(f"--lsm-profile {wanted}: {_NAMES[kind]} is not active here")
    return label


def _name_of(image_type: int) -> str:
    return next((_NAMES[name] for name, number in _TYPES.items() if number == image_type), "unknown")


def _known(label: str, process: RestoreProcess) -> str:
    if not lsm.is_known(label):
        raise RestoreError(
            f"pid {process.ns_pid}: this machine's {_NAMES[lsm.active()]} does not know {label}",
            hint="load it (apparmor_parser, semodule), or name another: --lsm-profile TYPE:LABEL",
        )
    return label


def restore_before_threads(process: RestoreProcess) -> None:
    """In a process that is going to have threads, and is to have a SELinux context."""
    leader = process.threads[0]
    if lsm.active() != lsm.SELINUX or len(process.threads) == 1 or not leader.label:
        return
    batch = Batch()
    open_attributes(leader, batch)
    restore(leader, batch)
    try:
        process.runner.run(batch)
    except RemoteCallError as error:
        raise RestoreError(f"pid {process.ns_pid} does not get the label {leader.label}: {error}") from error
    for thread in process.threads:
        thread.label = ""


def open_attributes(thread: RestoreThread, batch: Batch) -> None:
    """While the thread may still open what belongs to root."""
    for name, label in _labels(thread):
        path = batch.path(f"/proc/thread-self/attr/{lsm.attribute(name)}")
        thread.attributes[name] = (batch.call(nr.openat, AT_FDCWD, path, O_WRONLY, 0), label)


def restore(thread: RestoreThread, batch: Batch) -> None:
    """Write what was opened."""
    for fd, label in thread.attributes.values():
        data = batch.data(label.encode(errors="surrogateescape"))
        batch.call(nr.write, fd, data, data.size)
        batch.call(nr.close, fd)
    thread.attributes.clear()


def _labels(thread: RestoreThread) -> list[tuple[str, str]]:
    found = []
    if thread.label:
        found.append(("current", f"changeprofile {thread.label}" if lsm.active() == lsm.APPARMOR else thread.label))
    if thread.socket_label:
        found.append(("sockcreate", thread.socket_label))
    return found
