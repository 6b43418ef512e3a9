"""Podman's own profile of AppArmor's is loaded by Podman, and only where it is missing."""

from pathlib import Path

import pytest

from torpor.containers import podman_profile
from torpor.kernel import lsm


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Podman is asked for, where AppArmor has loaded a profile of something else."""
    script, log = tmp_path / "podman", tmp_path / "log"
    script.write_text(f'#!/bin/sh\necho "$@" >>{log}\n[ "$1" != create ] || echo warning: id\n[ "$1" != init ]\n')
    script.chmod(0o755)
    log.touch()
    monkeypatch.setenv("TORPOR_PODMAN", str(script))
    monkeypatch.setattr(podman_profile, "_SBIN", str(tmp_path))
    (tmp_path / "apparmor_parser").write_text("#!/bin/sh\n")
    (tmp_path / "apparmor_parser").chmod(0o755)
    monkeypatch.setattr(lsm, "active", lambda: lsm.APPARMOR)
    monkeypatch.setattr(lsm, "profiles", lambda: {"docker-default"})
    return log


@pytest.mark.parametrize("wanted", ["containers-default-0.50.1", "containers-default-"])
def test_it_is_loaded_by_a_container_that_never_runs(log: Path, wanted: str) -> None:
    podman_profile.load(wanted)
    create, *others = log.read_text().splitlines()
    assert create.startswith("create --network=none --rootfs /")
    assert others == ["init id", "rm --force --time=0 id"]  # although it says that it cannot start


def test_where_it_is_not_missing_nobody_is_asked(log: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    podman_profile.load("my-own")
    podman_profile.load("")
    monkeypatch.setattr(lsm, "profiles", lambda: {"containers-default-0.50.1"})
    podman_profile.load("containers-default-0.50.1")
    podman_profile.load()
    monkeypatch.setattr(lsm, "profiles", set)
    monkeypatch.setattr(lsm, "active", lambda: lsm.SELINUX)
    podman_profile.load()
    monkeypatch.setattr(lsm, "active", lambda: lsm.APPARMOR)
    (tmp_path / "apparmor_parser").unlink()
    podman_profile.load()
    assert log.read_text() == ""
