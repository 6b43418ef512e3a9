"""Whose the bundle is that a note beside images names: its hooks are run with our rights, outside of the container."""

import json
import os
from pathlib import Path

import pytest

from torpor.base.errors import NotPermittedError
from torpor.containers import note, waking
from torpor.containers.oci import OciRuntime, check_bundle
from torpor.images.errors import ImageError

_USER = 54321


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    made = tmp_path / "bundle"
    made.mkdir(mode=0o755)
    (made / "config.json").write_text("{}")
    return made


def test_our_own_is_taken(bundle: Path, tmp_path: Path) -> None:
    check_bundle(str(bundle), tmp_path / "images")
    (tmp_path / "link").symlink_to(bundle)
    check_bundle(str(tmp_path / "link"))


@pytest.mark.root
@pytest.mark.parametrize("part", ["bundle", "bundle/config.json"])
def test_another_user_s_is_not(bundle: Path, tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)
    os.chown(tmp_path / part, _USER, _USER)
    with pytest.raises(NotPermittedError, match="54321"):
        check_bundle(str(bundle))
    monkeypatch.setenv("SUDO_UID", str(_USER))
    check_bundle(str(bundle))


def test_one_that_anybody_may_write_is_not(bundle: Path) -> None:
    bundle.chmod(0o777)
    with pytest.raises(NotPermittedError, match="anybody"):
        check_bundle(str(bundle))


@pytest.mark.root
def test_another_user_s_link_is_not(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle)
    os.chown(tmp_path / "link", _USER, _USER, follow_symlinks=False)
    with pytest.raises(NotPermittedError, match="54321"):
        check_bundle(str(tmp_path / "link"))


@pytest.mark.parametrize("place", ["/proc/self/cwd/bundle", "bundle"])
def test_one_of_wherever_we_are_is_not(bundle: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.chdir(bundle.parent)
    with pytest.raises(NotPermittedError):
        check_bundle(place)


def test_one_that_came_with_the_images_is_not_run(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the way of ``torpor restore DIR``."""
    run: list[object] = []
    monkeypatch.setattr(OciRuntime, "_restore_detached", lambda self, words: run.append(words))
    told = {"engine": "runc", "name": "web", "place": str(bundle)}
    (bundle / note.NAME).write_text(json.dumps(told))
    found = note.read(bundle)
    assert found is not None
    with pytest.raises(NotPermittedError, match="came with it"):
        waking.restore_directory(bundle, found, None, 1, [])
    assert run == []


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
@pytest.mark.parametrize("key", ["name", "place"])
def test_a_note_s_texts_are_such(tmp_path: Path, key: str, text: str) -> None:
    (tmp_path / note.NAME).write_text(json.dumps({"engine": "runc", "name": "web", key: text}))
    with pytest.raises(ImageError):
        note.read(tmp_path)
