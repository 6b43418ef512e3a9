"""What images may ask for: looked at as a whole before anything is made.

Each refusal names the image, the field, and the option that would allow it.  What a name in an image may lead to is
checked where it is used; docs/internals/untrusted-images.md has the table of all fields.
"""

from __future__ import annotations

import os

from torpor.base.errors import TRUST_IT, NotPermittedError
from torpor.base.ids import Pid
from torpor.engine.restore import precedence
from torpor.engine.restore.session import RestoreSession
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import ImageStore, load_all
from torpor.objects.model import RestoreThread
from torpor.objects.task import creds

_DEVICES = {m.TtyType.CONSOLE: "a console", m.TtyType.VT: "a virtual terminal", m.TtyType.SERIAL: "a serial line"}
#: Of ``fstype``: they change what holds for all processes.
_MACHINE = ("binfmt_misc", "devtmpfs")


_LABELS = ("lsm_profile", "lsm_sockcreate", "torpor_lsm_exec", "torpor_lsm_fscreate", "torpor_lsm_keycreate")


def check(session: RestoreSession) -> None:
    """NotPermittedError for what the policy of the session does not allow."""
    policy = session.options.policy
    for process in session.everyone:
        for thread in process.threads:
            if policy.capabilities is not None:
                _check_capabilities(thread, policy.capabilities)
            if not policy.labels:
                _check_label(thread)
            if not policy.precedence:
                precedence.check_thread(thread)
        if not policy.precedence:
            precedence.check_process(process)
    if not policy.devices:
        _check_devices(session.store)
    if not policy.machine:
        _check_mounts(session)


def _check_capabilities(thread: RestoreThread, allowed: int) -> None:
    asked = creds.capabilities_of(thread.core) & ~allowed
    if asked:
        raise NotPermittedError(
            f"core-{thread.ns_tid}.img: creds: capabilities {asked:#x} are not the caller's to give",
            hint="restore as root",
        )


def _check_label(thread: RestoreThread) -> None:
    from torpor.kernel import lsm

    creds_entry = thread.core.thread_core.creds
    own = lsm.parse_profile(lsm.read_label(Pid(os.getpid()), Pid(os.getpid()), "current"))
    for name in _LABELS:
        label = getattr(creds_entry, name)
        if label and label != own:
            raise NotPermittedError(f"core-{thread.ns_tid}.img: creds: {name}: {label!r} is asked for", hint=TRUST_IT)


def _check_devices(store: ImageStore) -> None:
    if not store.exists(kinds.TTY_INFO.file_name()):
        return
    for info in load_all(store, kinds.TTY_INFO):
        if info.type in _DEVICES:
            raise NotPermittedError(
                f"tty-info.img: type: {_DEVICES[info.type]} of this machine is asked for", hint=TRUST_IT
            )


def _check_mounts(session: RestoreSession) -> None:
    from torpor.objects.ns.mnt import filesystems

    for ident in sorted({process.ids.mnt_ns_id for process in session.alive}):
        if not session.store.exists(kinds.MNTS.file_name(ident)):
            continue
        for entry in load_all(session.store, kinds.MNTS, ident):
            kind = filesystems.BY_CODE.get(entry.fstype)
            if kind is not None and kind.name in _MACHINE and not entry.HasField("ext_key"):
                raise NotPermittedError(
                    f"mountpoints-{ident}.img: fstype: {kind.name} on {entry.mountpoint} is asked for", hint=TRUST_IT
                )
