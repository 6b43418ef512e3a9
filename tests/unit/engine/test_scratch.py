"""A directory for a while, beside others who clear up."""

import tempfile
from pathlib import Path

import pytest

from torpor.engine import scratch


def test_one_that_is_taken_for_a_dead_ones_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By somebody who makes another there, before it has been opened and locked."""
    taken: list[Path] = []

    def make(prefix: str, dir: Path) -> str:
        made = mkdtemp(prefix=prefix, dir=dir)
        if not taken:
            taken.append(Path(made))
            with scratch.directory(tmp_path):
                pass
            assert not taken[0].exists()
        return made

    mkdtemp = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", make)
    with scratch.directory(tmp_path) as path:
        assert path.exists()
        assert path not in taken
        with scratch.directory(tmp_path):
            assert path.exists()
    assert not list(tmp_path.iterdir())
