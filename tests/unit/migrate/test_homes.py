"""What killed migrations have left of images here is removed, unless it may be all that there is of somebody."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from torpor.images import manifest
from torpor.migrate import homes


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path))
    yield tmp_path / "migrating"


def _leave(place: Path, *, whole: bool, age_s: float = 100.0) -> Path:
    images = place / "images"
    images.mkdir(parents=True)
    if whole:
        (images / manifest.NAME).write_bytes(manifest.encode(manifest.made_here("1", "", "")))
    os.utime(place, (time.time() - age_s,) * 2)
    return place


def test_of_a_process_that_runs_nothing_is_kept(state: Path) -> None:
    place = _leave(state / homes.of_process(os.getpid()), whole=True)
    homes.sweep()
    assert not place.exists()


def test_of_one_that_does_not_what_is_whole_is_kept(state: Path) -> None:
    whole, part = _leave(state / "1-99999999-aa", whole=True), _leave(state / "1-99999999-bb", whole=False)
    archive = _leave(state / "0123456789ab-cc", whole=False)
    (archive / "container.tar").touch()
    os.utime(archive, (0, 0))
    homes.sweep()
    assert whole.exists() and archive.exists() and not part.exists()


def test_what_is_at_work_or_has_only_just_been_is_left_alone(state: Path) -> None:
    young = _leave(state / homes.of_process(os.getpid()), whole=True, age_s=0.0)
    with homes.held(state / homes.of_process(os.getpid())) as place:
        os.utime(place, (0, 0))
        homes.sweep()
        assert place.exists() and young.exists()
    homes.sweep()
    assert not place.exists() and young.exists()
