"""What tests keep: made once, and left alone as long as anybody uses it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import cache


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TORPOR_TEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_used", {})
    yield
    for kept in [*cache._used]:
        _end_use(kept)


def _end_use(kept: Path) -> None:
    """As the end of this process does."""
    os.close(cache._used.pop(kept))


def _make(work: Path) -> Path:
    (work / "made").mkdir()
    return work / "made"


_OTHER = """
import sys
from harness.cache import made
print(made("kind", b"old", lambda work: (_ for _ in ()).throw(AssertionError)), flush=True)
sys.stdin.read()
"""


def test_what_another_run_uses_stays(repository: Path) -> None:
    old = cache.made("kind", b"old", _make)
    _end_use(old)
    line = [sys.executable, "-c", _OTHER]
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=repository / "tests"
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == str(old)
        new = cache.made("kind", b"new", _make)
        assert old.exists() and new.exists()
        other.communicate()
    newest = cache.made("kind", b"newest", _make)
    assert not old.exists()
    assert new.exists() and newest.exists()  # which we use ourselves
    used = {path.name for path in newest.parent.glob(".kind-*")}
    assert used == {f".{each.name}.used" for each in (new, newest)}


def test_what_nobody_uses_goes() -> None:
    old = cache.made("kind", b"old", _make)
    _end_use(old)
    assert cache.made("kind", b"old", _make) == old
    _end_use(old)
    new = cache.made("kind", b"new", _make)
    assert new.exists() and not old.exists()


def test_what_another_name_has_stays() -> None:
    other = cache.made("kind-arm64", b"old", _make)
    _end_use(other)
    cache.made("kind", b"new", _make)
    assert other.exists()
