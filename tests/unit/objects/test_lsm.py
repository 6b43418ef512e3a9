"""Security labels, with the kernel's part played: neither AppArmor nor SELinux need be active."""

from pathlib import Path

import pytest

from torpor.base.errors import RestoreError
from torpor.base.ids import TreePid
from torpor.images import messages as m
from torpor.kernel import lsm as kernel
from torpor.kernel.arch import nr
from torpor.objects.model import RestoreProcess, RestoreThread
from torpor.objects.task import lsm
from torpor.tracee.batch import Batch

CONTEXT = "system_u:system_r:container_t:s0:c1,c2"


def _process(label: str = "", sockets: str = "", n_threads: int = 1) -> RestoreProcess:
    process = RestoreProcess(m.pstree_entry(pid=7), m.core_entry(), m.mm_entry(), m.task_kobj_ids_entry())
    for tid in range(7, 7 + n_threads):
        core = m.core_entry()
        if label:
            core.thread_core.creds.lsm_profile = label
        if sockets:
            core.thread_core.creds.lsm_sockcreate = sockets
        process.threads.append(RestoreThread(process, core, TreePid(tid)))
    return process


@pytest.fixture(params=[kernel.APPARMOR, kernel.SELINUX])
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name = str(request.param)
    _activate(monkeypatch, name)
    return name


def _activate(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(kernel, "active", lambda: name)
    monkeypatch.setattr(kernel, "attribute", lambda what: f"apparmor/{what}" if name == kernel.APPARMOR else what)
    monkeypatch.setattr(kernel, "is_known", lambda label: label != "absent")


def test_profiles_and_their_modes() -> None:
    assert kernel.parse_profile("docker-default (enforce)") == "docker-default"
    assert kernel.parse_profile("/usr/bin/a b (complain)") == "/usr/bin/a b"
    assert kernel.parse_profile("unconfined") == ""


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({}, ""),
        ({"apparmor/current": "unconfined\n"}, kernel.APPARMOR),
        ({"current": "unconfined\n"}, kernel.APPARMOR),
        ({"current": f"{CONTEXT}\0"}, kernel.SELINUX),
        ({"current": "_"}, ""),
    ],
)
def test_the_active_module(files: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_read", lambda path: files.get(path.partition("attr/")[2], "").rstrip("\0\n") or None)
    kernel.active.cache_clear()
    try:
        assert kernel.active() == name
    finally:
        kernel.active.cache_clear()


def test_a_label_is_written_by_the_thread_itself(module: str) -> None:
    process = _process("a-label", "sockets")
    lsm.plan([process], lsm.type_here(), "")
    batch = Batch()
    lsm.open_attributes(process.threads[0], batch)
    lsm.restore(process.threads[0], batch)
    data = batch.encode(0x1000)
    current = b"changeprofile a-label" if module == kernel.APPARMOR else b"a-label"
    assert current in data and b"sockets" in data and b"/proc/thread-self/attr/" in data
    assert len(batch) == 6
    assert data.count(nr.write.to_bytes(4, "little") + bytes(4)) >= 1


def test_another_label_is_named_by_hand(module: str) -> None:
    process = _process("a-label")
    lsm.plan([process], m.lsmtype.NO_LSM, f"{module}:other:one")
    assert process.threads[0].label == "other:one"


def test_tasks_without_a_label_get_none(module: str) -> None:
    process = _process()
    lsm.plan([process], lsm.type_here(), f"{module}:other")
    batch = Batch()
    lsm.open_attributes(process.threads[0], batch)
    assert len(batch) == 0


def test_a_label_that_is_not_loaded_is_refused(module: str) -> None:
    with pytest.raises(RestoreError, match="does not know absent"):
        lsm.plan([_process("absent")], lsm.type_here(), "")


def test_labels_of_another_module_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _activate(monkeypatch, "")
    with pytest.raises(RestoreError, match=r"has the SELinux label .*, and here is no security module"):
        lsm.plan([_process(CONTEXT)], m.lsmtype.SELINUX, "")
    with pytest.raises(RestoreError, match="AppArmor is not active here"):
        lsm.plan([_process(CONTEXT)], m.lsmtype.SELINUX, "apparmor:x")
    with pytest.raises(RestoreError, match="neither apparmor:PROFILE nor selinux:CONTEXT"):
        lsm.plan([_process()], m.lsmtype.NO_LSM, "smack:x")
    lsm.plan([_process()], m.lsmtype.SELINUX, "")


def test_a_profile_is_looked_up_among_those_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernel, "active", lambda: kernel.APPARMOR)
    profiles = tmp_path / "profiles"
    monkeypatch.setattr(kernel, "_PROFILES", str(profiles))
    assert kernel.is_known("anything")  # securityfs cannot be read
    profiles.write_text("docker-default (enforce)\n/usr/bin/man (complain)\n")
    assert kernel.is_known("docker-default")
    assert not kernel.is_known("lxc-default")
    assert kernel.is_known(":lxc:profile")
