"""What images may ask for, by the policy of whoever restores: looked at as a whole, by images that lie in memory."""

from types import SimpleNamespace
from typing import cast

import pytest

from torpor.base.errors import NotPermittedError
from torpor.engine.options import STRANGERS, RestorePolicy
from torpor.engine.restore import policy
from torpor.engine.restore.session import RestoreSession
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import store_all
from torpor.images.stores.memory import MemStore
from torpor.kernel import lsm
from torpor.objects.ns.mnt import filesystems

_NET_ADMIN, _CHOWN = 1 << 12, 1 << 0


def session(wanted: RestorePolicy, *, cap_prm: int = 0, label: str = "") -> RestoreSession:
    core = m.core_entry()
    core.thread_core.creds.cap_prm.append(cap_prm)
    if label:
        core.thread_core.creds.lsm_profile = label
    thread = SimpleNamespace(core=core, ns_tid=9)
    process = SimpleNamespace(threads=[thread], core=core, ns_pid=9, ids=m.task_kobj_ids_entry(mnt_ns_id=4))
    options = SimpleNamespace(policy=wanted)
    made = SimpleNamespace(options=options, everyone=[process], alive=[process], store=MemStore())
    return cast("RestoreSession", made)


def mounted(fstype: str, *, external: bool = False) -> m.mnt_entry:
    code = next(code for code, kind in filesystems.BY_CODE.items() if kind.name == fstype)
    entry = m.mnt_entry(
        fstype=code,
        mnt_id=1,
        root_dev=1,
        parent_mnt_id=0,
        flags=0,
        root="/",
        mountpoint="/x",
        source="none",
        options="",
    )
    if external:
        entry.ext_key = "KEY"
    return entry


def test_nothing_in_particular_is_anybodys() -> None:
    policy.check(session(STRANGERS))
    policy.check(session(RestorePolicy(), cap_prm=_NET_ADMIN, label="their_label"))


def test_capabilities_are_the_callers() -> None:
    policy.check(session(RestorePolicy(capabilities=_NET_ADMIN | _CHOWN), cap_prm=_NET_ADMIN))
    with pytest.raises(NotPermittedError, match=r"core-9\.img: creds: capabilities 0x1000 "):
        policy.check(session(RestorePolicy(capabilities=_CHOWN), cap_prm=_NET_ADMIN | _CHOWN))


def test_a_strangers_label_is_ours_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lsm, "read_label", lambda *_: "ours (enforce)")
    monkeypatch.setattr(lsm, "parse_profile", lambda text: text.partition(" ")[0])
    policy.check(session(STRANGERS, label="ours"))
    with pytest.raises(NotPermittedError, match="lsm_profile: 'theirs' is asked for"):
        policy.check(session(STRANGERS, label="theirs"))


@pytest.mark.parametrize(
    ("kind", "is_allowed"),
    [(m.TtyType.PTY, True), (m.TtyType.CONSOLE, False), (m.TtyType.VT, False), (m.TtyType.SERIAL, False)],
)
def test_a_stranger_gets_no_device_of_this_machine(kind: int, is_allowed: bool) -> None:
    for wanted in (STRANGERS, RestorePolicy()):
        made = session(wanted)
        info = m.tty_info_entry(
            id=1, type=kind, locked=False, exclusive=False, packet_mode=False, sid=0, pgrp=0, rdev=0
        )
        store_all(made.store, kinds.TTY_INFO, [info])
        if is_allowed or wanted.devices:
            policy.check(made)
        else:
            with pytest.raises(NotPermittedError, match=r"tty-info\.img: type: a "):
                policy.check(made)


@pytest.mark.parametrize(
    ("fstype", "external", "is_allowed"),
    [("tmpfs", False, True), ("binfmt_misc", False, False), ("devtmpfs", False, False), ("devtmpfs", True, True)],
)
def test_a_stranger_mounts_nothing_that_changes_the_machine(fstype: str, external: bool, is_allowed: bool) -> None:
    made = session(STRANGERS)
    store_all(made.store, kinds.MNTS, [mounted("proc"), mounted(fstype, external=external)], 4)
    if is_allowed:
        policy.check(made)
    else:
        with pytest.raises(NotPermittedError, match=rf"mountpoints-4\.img: fstype: {fstype} on /x"):
            policy.check(made)
