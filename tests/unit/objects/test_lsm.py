"""Security labels, with the kernel's part played: neither AppArmor nor SELinux need be active."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from torpor.base.errors import NotPermittedError, RestoreError
from torpor.base.ids import Pid, TreePid
from torpor.images import messages as m
from torpor.kernel import lsm as kernel
from torpor.kernel.arch import nr
from torpor.objects.model import DumpProcess, RestoreProcess, RestoreThread
from torpor.objects.task import lsm
from torpor.tracee import borrow
from torpor.tracee.batch import Batch
from torpor.tracee.remote import Runner, Scratch
from torpor.tracee.thread import Thread

CONTEXT = "system_u:system_r:container_t:s0:c1,c2"
OWN = "unconfined_u:unconfined_r:unconfined_t:s0"


def _process(label: str = "", sockets: str = "", n_threads: int = 1) -> RestoreProcess:
    process = RestoreProcess(m.pstree_entry(pid=7), m.core_entry(), m.mm_entry(), m.task_kobj_ids_entry())
    for tid in range(7, 7 + n_threads):
        core = m.core_entry()
        if label:
            core.thread_core.creds.lsm_profile = label
        if sockets:
            core.thread_core.creds.lsm_sockcreate = sockets
        runner = Runner(Thread(Pid(7), Pid(tid)), Scratch(0x1000, 0x2000, 0x1000))
        process.threads.append(RestoreThread(process, core, TreePid(tid), runner))
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
    monkeypatch.setattr(kernel, "own_label", lambda: OWN)
    monkeypatch.setattr(kernel, "read_label", lambda pid, tid, what: OWN if what == "current" else "")
    monkeypatch.setattr(kernel, "may_signal_as", lambda label, number: label != "a-quiet-label")
    monkeypatch.setattr(kernel, "denial", lambda source, target, kind, permission: "")
    monkeypatch.setattr(kernel, "may_change_profile", lambda own, other: None)


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
    assert current in data and b"/proc/thread-self/attr/" in data
    # AppArmor has none for sockets.
    assert (b"sockets" in data) is (module == kernel.SELINUX)
    assert len(batch) == (6 if module == kernel.SELINUX else 3)
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
    profiles.write_text(":lxc:profile (enforce)\n:lxc//in:two (enforce)\none (enforce)\n")
    assert kernel.is_known(":lxc:profile") and kernel.is_known("one//&:lxc://profile")
    assert kernel.is_known(":lxc//in:two//&two") and not kernel.is_known(":lxc:profile//&one")
    assert not kernel.is_known("one//&two") and not kernel.is_known(":lxc:other")


def test_a_label_that_is_right_already_is_not_written(module: str) -> None:
    process = _process(OWN)
    lsm.plan([process], lsm.type_here(), "")
    batch = Batch()
    lsm.open_attributes(process.threads[0], batch)
    assert len(batch) == 0 and not process.threads_last


def test_who_may_not_send_himself_a_signal_is_followed_from_call_to_call(module: str) -> None:
    for label, by_calls in (("a-label", False), ("a-quiet-label", True)):
        process, batch = _process(label), Batch()
        lsm.plan([process], lsm.type_here(), "")
        lsm.open_attributes(process.threads[0], batch)
        lsm.restore(process.threads[0], batch)
        assert process.runner.by_calls is by_calls


def test_keys_are_made_with_the_label_that_their_owner_is_to_have(module: str) -> None:
    for label, n_calls in ((OWN, 1), ("a-label", 7 if module == kernel.SELINUX else 1)):
        process, batch = _process(label), Batch()
        lsm.plan([process], lsm.type_here(), "")
        with lsm.labelling_keys(process.threads[0], batch):
            batch.call(nr.keyctl, 1, 0)
        assert len(batch) == n_calls


def test_threads_come_last_where_selinux_gives_another_context(module: str) -> None:
    process = _process("a-label", n_threads=3)
    lsm.plan([process], lsm.type_here(), "")
    assert process.threads_last is (module == kernel.SELINUX)


def test_labels_are_changed_as_a_whole_or_by_their_type() -> None:
    assert kernel.relabel(CONTEXT, None) == CONTEXT
    assert kernel.relabel(CONTEXT, {"container_t": "mine_t"}) == "system_u:system_r:mine_t:s0:c1,c2"
    assert kernel.relabel(CONTEXT, {CONTEXT: OWN, "container_t": "mine_t"}) == OWN
    assert kernel.relabel(CONTEXT, {"s0:c1,c2": "s0:c3"}) == "system_u:system_r:container_t:s0:c3"
    assert kernel.relabel("docker-default", {"docker-default": "mine"}) == "mine"
    assert kernel.relabel("one//&:lxc:two:x//&three", {"three": "3", "s0": "x"}) == "one//&:lxc:two:x//&3"
    assert kernel.relabel("docker-default", {"default": "mine"}) == "docker-default"


def test_another_profile_takes_along_what_its_tasks_have_made(monkeypatch: pytest.MonkeyPatch) -> None:
    _activate(monkeypatch, kernel.SELINUX)
    new = "system_u:system_r:container_t:s0:c3,c4"
    changed = lsm.changes([_process(CONTEXT)], m.lsmtype.SELINUX, f"selinux:{new}", {"other_t": "mine_t"})
    assert kernel.relabel(CONTEXT, changed) == new
    assert kernel.relabel("system_u:object_r:container_file_t:s0:c1,c2", changed).endswith("container_file_t:s0:c3,c4")
    assert kernel.relabel("system_u:object_r:other_t:s0", changed) == "system_u:object_r:mine_t:s0"
    # Without categories a level is everybody's.
    bare = lsm.changes([_process(OWN)], m.lsmtype.SELINUX, f"selinux:{new}", {})
    assert kernel.relabel("system_u:object_r:bin_t:s0", bare) == "system_u:object_r:bin_t:s0"
    assert lsm.changes([_process(CONTEXT)], m.lsmtype.APPARMOR, f"selinux:{new}", {}) == {}
    sockets = lsm.plan_files([(m.file_entry(id=3, isk=m.inet_sk_entry(proto=6)), CONTEXT)], m.lsmtype.SELINUX, changed)
    assert sockets == {3: new}


def test_a_refused_transition_is_quoted_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    _activate(monkeypatch, kernel.SELINUX)
    monkeypatch.setattr(kernel, "denial", lambda *what: f"avc: {what}" if what[3] == "dyntransition" else "")
    with pytest.raises(NotPermittedError, match=r"pid 7 cannot be given its context: avc: .*dyntransition"):
        lsm.plan([_process(CONTEXT)], m.lsmtype.SELINUX, "")
    lsm.plan([_process(OWN)], m.lsmtype.SELINUX, "")
    monkeypatch.setattr(kernel, "denial", lambda *what: f"avc: {what}" if what[3] == "create" else "")
    socket = m.file_entry(id=3, isk=m.inet_sk_entry(proto=6))
    with pytest.raises(NotPermittedError, match=r"a socket with the label .*tcp_socket"):
        lsm.plan_files([(socket, CONTEXT)], m.lsmtype.SELINUX)
    assert lsm.plan_files([(socket, OWN)], m.lsmtype.SELINUX) == {}
    assert lsm.plan_files([(socket, CONTEXT)], m.lsmtype.SELINUX, {CONTEXT: OWN}) == {}
    with pytest.raises(RestoreError, match=r"file 3: this machine's SELinux does not know absent"):
        lsm.plan_files([(socket, CONTEXT)], m.lsmtype.SELINUX, {CONTEXT: "absent"})


def test_what_may_not_be_looked_into_is_named_before_anything_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    _activate(monkeypatch, kernel.SELINUX)
    process = cast(DumpProcess, SimpleNamespace(pid=7, describe=lambda: "pid 7 (it)", maps=[]))
    monkeypatch.setattr(kernel, "denial", lambda *what: f"avc: {what[3]}" if what[3] == "ptrace" else "")
    (problem,) = lsm.tracing_problems(process)
    assert str(problem) == "pid 7 (it) cannot be looked into: avc: ptrace"
    assert not list(lsm.problems(process))
    monkeypatch.setattr(kernel, "denial", lambda *what: f"avc: {what[3]}" if what[3] == "execmem" else "")
    assert not list(lsm.tracing_problems(process))
    (problem,) = lsm.problems(process)
    assert str(problem) == f"pid 7 (it) ({OWN}) may not map code, and none of its own has room"
    monkeypatch.setattr(borrow, "find_unused_code", lambda pid, maps: (0x1000, b""))
    assert not list(lsm.problems(process))
    assert not lsm.wanted_to_look_into(Pid(7))
    _activate(monkeypatch, kernel.APPARMOR)
    assert not list(lsm.problems(process)) and not list(lsm.tracing_problems(process))
    monkeypatch.setattr(kernel, "own_label", lambda: "ours")
    monkeypatch.setattr(kernel, "read_label", lambda pid, tid, what: "theirs (enforce)")
    assert lsm.wanted_to_look_into(Pid(7)) == (
        "AppArmor's ours confines us, which wants the rule ptrace (read, trace) peer=theirs, "
        "and theirs the rule ptrace (readby, tracedby) peer=ours"
    )
    monkeypatch.setattr(kernel, "own_label", lambda: "")
    assert not lsm.wanted_to_look_into(Pid(7))


def test_a_confined_engine_says_that_it_may_not_give_a_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    _activate(monkeypatch, kernel.APPARMOR)
    monkeypatch.setattr(kernel, "may_change_profile", lambda own, other: other == "free")
    with pytest.raises(NotPermittedError, match=r"cannot be given its profile: .* has no rule for it"):
        lsm.plan([_process("a-label")], m.lsmtype.APPARMOR, "")
    lsm.plan([_process("free")], m.lsmtype.APPARMOR, "")


def test_policies_are_asked_without_a_denial(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"process/index": "2", "process/perms/dyntransition": "24"}
    monkeypatch.setattr(kernel, "read_small", lambda path: files[path.partition("class/")[2]])
    asked: list[bytes] = []

    def answer(path: str, query: bytes) -> str:
        asked.append(query)
        return "800000 ffffffff 0 ffffffff 7 0" if b"container_t" in query else "0 ffffffff 0 ffffffff 7 0"

    monkeypatch.setattr(kernel, "_transact", answer)
    assert kernel.allows(OWN, CONTEXT, "process", "dyntransition") is True
    assert kernel.allows(OWN, OWN, "process", "dyntransition") is False
    assert asked[0] == f"{OWN} {CONTEXT} 2".encode()
    monkeypatch.setattr(kernel, "_transact", lambda path, query: "0 ffffffff 0 ffffffff 7 1")
    assert kernel.allows(OWN, OWN, "process", "dyntransition") is True  # the domain is permissive
    monkeypatch.setattr(kernel, "_transact", answer)
    monkeypatch.setattr(kernel, "is_enforcing", lambda: True)
    assert kernel.denial(OWN, OWN, "process", "dyntransition").startswith("avc: denied { dyntransition } for scontext=")
    assert kernel.denial(OWN, CONTEXT, "process", "dyntransition") == ""


def test_a_profile_is_asked_for_signals_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "active", lambda: kernel.APPARMOR)
    asked: list[bytes] = []

    def answer(path: str, query: bytes) -> str:
        asked.append(query)
        return "allow 0x00000006\ndeny 0x00000000\n" if b"open" in query else "allow 0x00000002\n"

    monkeypatch.setattr(kernel, "_transact", answer)
    assert kernel.may_signal_as("open", 23) and not kernel.may_signal_as("closed", 23)
    assert asked[0] == b"label\0open\0\x0a\x17open"
    assert kernel.may_signal_as("", 23)
    monkeypatch.setattr(kernel, "_transact", lambda path, query: f"allow 0x{(b'other' in query) << 30:08x}\n")
    assert kernel.may_change_profile("open", "other") and kernel.may_change_profile("", "another")
    assert kernel.may_change_profile("open", "third") is False
