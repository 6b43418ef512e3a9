"""The directory of a name, made where it is missing, within a root that no link leads out of."""

import os
from pathlib import Path

import pytest

from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.kernel.uapi.fcntl import O_PATH
from torpor.objects.files.paths import MissingParents


def test_what_is_missing_is_made_and_taken_away(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with OwnedFd(os.open(tmp_path, O_PATH)) as root:
        with MissingParents(root.fileno(), "/a/b/c/name") as parents:
            assert parents.last == "name"
            (tmp_path / "a/b/c/name").write_text("x")
            assert os.stat("name", dir_fd=parents.directory).st_size == 1
            os.unlink("name", dir_fd=parents.directory)
        assert list((tmp_path / "a").iterdir()) == []


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    inside = tmp_path / "root"
    inside.mkdir()
    (inside / "evil").symlink_to(outside)
    with OwnedFd(os.open(inside, O_PATH)) as root:
        # The link leads to a name that is not there below the root, and is not made.
        with pytest.raises(RestoreError), MissingParents(root.fileno(), "/evil/job"):
            pass
    assert list(outside.iterdir()) == []


def test_a_name_in_the_root(tmp_path: Path) -> None:
    with OwnedFd(os.open(tmp_path, O_PATH)) as root, MissingParents(root.fileno(), "/name") as parents:
        assert os.fstat(parents.directory).st_ino == os.stat(tmp_path).st_ino
