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
# Devices were made before there was a policy.
restorecon -R /dev /srv
chcon -t bin_t /srv/server /srv/labels
"""
_SERVER = """
runcon unconfined_u:unconfined_r:unconfined_t:s0 sh -c '
    setenforce 1; getenforce
    sh confined/job runcon unconfined_u:unconfined_r:labserver_t:s0'
"""
_CONTAINER = """
runcon system_u:system_r:container_runtime_t:s0 sh -c 'setenforce 1; getenforce; sh confined/podman'
"""
_REFUSALS = """
runcon unconfined_u:unconfined_r:unconfined_t:s0 sh -c 'setenforce 1; getenforce; sh confined/refusals-selinux'
"""
_APPARMOR = "apparmor_parser --replace confined/profile\n"
_PROFILE = "sh confined/job aa-exec -p labserver --"
#: What is said, by the case's name in the script.
_SAID_BY_SELINUX = {
    "no ptrace": r"cannot be looked into: avc: denied \{ ptrace \}",
    "no type": "SELinux does not know unconfined_u:unconfined_r:absent_t:s0",
    "no transition": r"cannot be given its context: avc: denied \{ dyntransition \}",
    "no profile": "AppArmor is not active here",
}
_SAID_BY_APPARMOR = {
    "confined engine": "labengine, which confines us, has no rule for it",
    "no profile": "AppArmor does not know labserver",
    "no profile of a stack": "AppArmor does not know labserver//&labother",
    "no SELinux": "SELinux is not active here",
}


@pytest.mark.parametrize(
    ("module", "script"),
    [("selinux", _SELINUX + _SERVER), ("apparmor", _APPARMOR + _PROFILE)],
    ids=["selinux", "apparmor"],
)
def test_a_confined_server(kernel: Kernel, installed: dict[str, Path], module: str, script: str) -> None:
    said = _run(kernel, installed, module, script)
    assert "labels equal 1" in said and "labels equal 2" in said
    assert sum("labserver" in line for line in said) >= 4
    _assert_nothing_was_denied(said)


def test_a_container_with_a_label(kernel: Kernel, installed: dict[str, Path]) -> None:
    said = _run(kernel, installed, "selinux", _SELINUX + _CONTAINER)
    assert {"labels equal 1", "labels equal 2", "labels changed", "labels equal other"} <= set(said)
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
