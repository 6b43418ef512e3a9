"""What a restore would not find, by what `podman inspect` says."""

from pathlib import Path

import pytest

from torpor.base import log
from torpor.base.errors import RefusedError
from torpor.containers import foreseen


def _told(source: Path, *secrets: str) -> dict[str, object]:
    mount = {"Type": "bind", "Source": str(source), "Destination": "/data"}
    volume = {"Type": "volume", "Source": "/not/there", "Destination": "/volume"}
    return {"Mounts": [mount, volume], "Config": {"Secrets": [{"Name": name} for name in secrets]}}


@pytest.mark.parametrize("to_archive", [False, True])
def test_a_directory_that_is_gone_is_refused_unless_the_container_runs_on(to_archive: bool, tmp_path: Path) -> None:
    foreseen.check("web", _told(tmp_path), to_archive=to_archive, runs_on=False, is_removed=True)
    gone = _told(tmp_path / "gone")
    with pytest.raises(RefusedError, match=r"has .*gone bound on /data"):
        foreseen.check("web", gone, to_archive=to_archive, runs_on=False, is_removed=False)
    foreseen.check("web", gone, to_archive=to_archive, runs_on=True, is_removed=False)


def test_secrets_are_told_and_refused_where_nothing_else_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(log, "warn", said.append)
    told = _told(tmp_path, "one", "two")
    foreseen.check("web", told, to_archive=False, runs_on=False, is_removed=False)
    assert not said
    foreseen.check("web", told, to_archive=True, runs_on=False, is_removed=False)
    assert "does not hold its secrets (one, two)" in said[0]
    with pytest.raises(RefusedError, match="started with --rm"):
        foreseen.check("web", told, to_archive=True, runs_on=False, is_removed=True)


def test_what_podman_does_not_say_is_no_problem() -> None:
    foreseen.check("web", {}, to_archive=True, runs_on=False, is_removed=True)
    foreseen.check("web", {"Config": None, "Mounts": None}, to_archive=True, runs_on=False, is_removed=True)
