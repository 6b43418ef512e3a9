"""What a name of ``criu check --feature`` means: what CRIU looks at, not something that is as new."""

import errno
import fcntl
import os
import socket
from pathlib import Path

import pytest

from torpor.kernel import errand, features, ptrace
from torpor.kernel.features import probe
from torpor.kernel.syscall import syscall


def _of_no_kernel(*_args: object, **_named: object) -> int:
    raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))


def test_pids_of_namespaces_are_a_line_of_status_and_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    has_line = "\nNSpid:\t" in Path("/proc/self/status").read_text()
    monkeypatch.setattr(fcntl, "ioctl", _of_no_kernel)
    assert probe("ns_pid") is has_line


def test_a_dump_of_sockets_that_nobody_can_answer_is_none() -> None:
    """The kernel says so in the message of its end."""
    assert features._diag_knows(socket.AF_INET, socket.IPPROTO_TCP)
    nobodys = 99
    assert not features._diag_knows(socket.AF_INET, nobodys)


@pytest.mark.parametrize(
    ("answer", "is_there"), [(errno.ERANGE, True), (errno.ENODEV, False), (errno.EPERM, False), (0, False)]
)
def test_a_number_for_a_moved_interface_is_looked_at_by_who_knows_it(
    monkeypatch: pytest.MonkeyPatch, answer: int, is_there: bool
) -> None:
    monkeypatch.setattr(features, "_ask_netlink", lambda *_asked: answer)
    assert probe("newifindex") is is_there


def test_filters_are_asked_for_of_a_task_that_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one without any the answer is the same whether they can be read or not."""
    known: list[bool] = []

    def spy(name: str, number: int, *words: int) -> int:
        if name == "ptrace" and words[0] == ptrace.PTRACE_SECCOMP_GET_FILTER:
            known.append("Seccomp:\t2" in Path(f"/proc/{words[1]}/status").read_text())
        return syscall(name, number, *words)

    monkeypatch.setattr(features, "syscall", spy)
    probe("seccomp_filters")
    assert known == [True]


def test_who_may_not_mount_is_told_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "syscall", lambda *_asked: _refuse(errno.EPERM))
    assert not probe("move_mount_set_group")
    monkeypatch.setattr(features, "syscall", lambda *_asked: _refuse(errno.ENOENT))
    assert probe("move_mount_set_group")


def _refuse(number: int) -> int:
    raise OSError(number, os.strerror(number))


@pytest.mark.parametrize(("name", "open_is_enough"), [("tun", False), ("tun_ns", False)])
def test_a_tun_device_is_asked_for_what_a_restore_needs(
    monkeypatch: pytest.MonkeyPatch, name: str, open_is_enough: bool
) -> None:
    monkeypatch.setattr(fcntl, "ioctl", _of_no_kernel)
    assert probe(name) is open_is_enough


def test_user_namespaces_need_addresses_that_can_be_set_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "syscall", lambda *_asked: _refuse(errno.EINVAL))
    assert not probe("userns")


def test_a_login_uid_is_taken_off_and_set_again_by_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Path("/proc/self/loginuid").read_text() if Path("/proc/self/loginuid").exists() else None
    probe("loginuid")
    assert before is None or Path("/proc/self/loginuid").read_text() == before
    monkeypatch.setattr(os, "pwrite", lambda *_asked: _refuse(errno.EPERM))
    assert not probe("loginuid")


def test_a_child_that_cannot_even_try_says_no() -> None:
    assert features._in_child(lambda: True)()
    assert not features._in_child(lambda: False)()
    assert not features._in_child(lambda: bool(_refuse(errno.EPERM)))()


def test_maps_of_an_overlay_are_looked_at_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(errand, "sent", _counting(asked))
    probe("overlayfs_maps")
    assert asked and "torpor-probe" not in Path("/proc/self/mountinfo").read_text()


def _counting(asked: list[object]) -> object:
    sent = errand.sent

    def count(work: object, *more: object) -> object:
        asked.append(work)
        return sent(work, *more)  # type: ignore[arg-type]

    return count


def test_an_external_network_is_a_word_that_the_engine_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_ask_netlink", lambda *_asked: errno.EPERM)
    assert probe("external_net_ns")


def test_every_probe_leaves_our_descriptors_and_children_as_they_are() -> None:
    def ours() -> tuple[list[str], str]:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
        return sorted(os.listdir("/proc/self/fd")), children

    before = ours()
    for name in features.FEATURES:
        probe(name)
    assert ours() == before
