"""A confined server, under SELinux (enforcing) and under AppArmor: tasks, sockets and pipes keep their labels."""

import re
from pathlib import Path

import pytest

from vm.disks import CONFINED
from vm.kernels import Kernel
from vm.machine import LabMachine
from vm.payload import REPOSITORY

_BEGIN = """
set -e
# Each denial is told of.
echo 0 >/proc/sys/kernel/printk_ratelimit
for program in server labels; do gcc -O2 -static -o /srv/$program confined/$program.c; done
# What the engine takes for the sign of it: PF_MEMALLOC_NOIO.
python3 -c '
import ctypes
assert ctypes.CDLL(None).prctl(57, 1, 0, 0, 0) == 0  # PR_SET_IO_FLUSHER
assert int(open("/proc/self/stat").read().rpartition(")")[2].split()[6]) & 1 << 19
'
"""
_SELINUX = """
load_policy -i
# Devices were made before there was a policy, and we have been copied there.
restorecon -R /dev /opt /srv
chcon -t bin_t /srv/server /srv/labels
"""
_SERVER = """
runcon unconfined_u:unconfined_r:unconfined_t:s0 sh -c '
    setenforce 1; getenforce
    sh confined/job runcon unconfined_u:unconfined_r:labserver_t:s0
    [ ! -d /srv/peer ] || sh confined/peer runcon unconfined_u:unconfined_r:labserver_t:s0'
"""
_CONTAINER = """
runcon system_u:system_r:container_runtime_t:s0 sh -c 'setenforce 1; getenforce; sh confined/podman'
"""
_ENGINE = """
runcon unconfined_u:unconfined_r:unconfined_t:s0 sh -c 'setenforce 1; getenforce; sh confined/engine'
"""
_REFUSALS = """
runcon unconfined_u:unconfined_r:unconfined_t:s0 sh -c 'setenforce 1; getenforce; sh confined/refusals-selinux'
"""
_APPARMOR = "apparmor_parser --replace confined/profile\n"
_PROFILE = """
sh confined/job aa-exec -p labserver --
[ ! -d /srv/peer ] || sh confined/peer aa-exec -p labserver --
"""
#: What is said, by the case's name in the script.
_SAID_BY_SELINUX = {
    "no ptrace": r"cannot be looked into: avc: denied \{ ptrace \}",
    "no type": "SELinux does not know unconfined_u:unconfined_r:absent_t:s0",
    "no type of a socket": "SELinux does not know unconfined_u:unconfined_r:absent_t:s0",
    "no socket": r"a socket with the label system_u:object_r:tmp_t:s0 cannot be made: avc: denied \{ create \}",
    "no transition": r"cannot be given its context: avc: denied \{ dyntransition \}",
    "no profile": "AppArmor is not active here",
}
_SAID_BY_APPARMOR = {
    "no ptrace": r"labengine-blind confines us, which wants the rule ptrace \(read, trace\) peer=labserver",
    "confined engine": "labengine, which confines us, has no rule for it",
    "no profile": "AppArmor does not know labserver",
    "no profile of a stack": r"AppArmor does not know lab(server//&labother|other//&labserver)",
    "no SELinux": "SELinux is not active here",
}


@pytest.mark.parametrize(
    ("module", "script"),
    [("selinux", _SELINUX + _SERVER), ("apparmor", _APPARMOR + _PROFILE)],
    ids=["selinux", "apparmor"],
)
def test_a_confined_server(
    kernel: Kernel, installed: dict[str, Path], peer: dict[str, Path], module: str, script: str
) -> None:
    """What another CRIU makes of it, if there is one, is printed."""
    said = _run(kernel, {**installed, **peer}, module, script)
    assert "labels equal 1" in said and "labels equal 2" in said
    assert sum("labserver" in line for line in said) >= 4
    # Logs and images have the label of their place, for they are no part of what is labelled.
    images = {line.split(":")[2] for line in said if re.match(r" *\d+ \w+:object_r:", line)}
    assert images == ({"var_t"} if module == "selinux" else set())
    _assert_nothing_was_denied(said)


def test_a_confined_engine(kernel: Kernel, installed: dict[str, Path]) -> None:
    """torpor_t, a domain of its own, in which it may not do all that the administrator may."""
    said = _run(kernel, installed, "selinux", _SELINUX + _ENGINE)
    assert {"labels equal 1", "labels equal 2"} <= set(said)
    _assert_nothing_was_denied(said)
    _assert_refused(said, {"not free": r"denied +\{ setenforce \}.*torpor_t"})


def test_a_container_with_a_label(kernel: Kernel, installed: dict[str, Path]) -> None:
    said = _run(kernel, installed, "selinux", _SELINUX + _CONTAINER)
    assert {"labels equal 1", "labels equal 2", "labels changed", "labels equal other"} <= set(said)
    _assert_nothing_was_denied(said)


def test_a_container_with_a_profile(kernel: Kernel, installed: dict[str, Path]) -> None:
    said = _run(kernel, installed, "apparmor", "sh confined/podman")
    assert {f"labels equal {when}" for when in ("1", "2", "loaded", "other")} <= set(said)
    _assert_refused(said, {"no profile": r"AppArmor does not know containers-default-.*torpor restore CONTAINER"})
    _assert_nothing_was_denied(said)


def test_selinux_s_other_labels_and_refusals(kernel: Kernel, installed: dict[str, Path]) -> None:
    said = _run(kernel, installed, "selinux", _SELINUX + _REFUSALS)
    assert "labels equal of" in said
    _assert_refused(said, _SAID_BY_SELINUX)
    _assert_nothing_was_denied(said)


def test_apparmor_s_other_labels_and_refusals(kernel: Kernel, installed: dict[str, Path]) -> None:
    said = _run(kernel, installed, "apparmor", _APPARMOR + "sh confined/refusals-apparmor")
    assert {"labels equal stacked", "labels equal namespace", "labels equal hat"} <= set(said)
    assert {"mapped labother (enforce)", "given labother (enforce)", "by an able engine labserver (enforce)"} <= set(
        said
    )
    _assert_refused(said, _SAID_BY_APPARMOR)


def _assert_refused(said: list[str], wanted: dict[str, str]) -> None:
    """Each case was refused with what is to be said, and nothing was made for it."""
    for case, text in wanted.items():
        (line,) = (line for line in said if line.startswith(f"{case}: "))
        assert re.search(text, line), line


def _run(kernel: Kernel, installed: dict[str, Path], module: str, script: str) -> list[str]:
    """What is said in a machine with that security module."""
    payload = {**installed, "confined": REPOSITORY / "tests/vm/confined"}
    with LabMachine(CONFINED, n_megabytes=2048) as machine:
        words = [f"security={module}", f"{module}=1"]
        result = machine.run(kernel, _BEGIN + script, payload=payload, words=words, timeout_s=600)
    print(result.output)
    assert result.status == 0, result.output
    return result.output.splitlines()


def _assert_nothing_was_denied(said: list[str]) -> None:
    """Nothing that would not have been without us."""
    before, after = (next(line for line in said if line.startswith(f"denied {when}")) for when in ("before", "after"))
    assert before.split()[-1] == after.split()[-1]
