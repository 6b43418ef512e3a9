"""Names looked up below a root of their own do not lead out of it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from torpor.kernel.openat2 import open_in_root

_O_PATH = 0o10000000


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    inside = tmp_path / "root"
    (inside / "etc").mkdir(parents=True)
    (inside / "etc" / "name").write_text("inside")
    (inside / "absolute").symlink_to("/etc/name")
    (inside / "up").symlink_to("../../../../../../etc/name")
    (tmp_path / "secret").write_text("outside")
    (inside / "out").symlink_to(tmp_path / "secret")
    fd = os.open(inside, _O_PATH)
    yield fd
    os.close(fd)


def _read(root: int, name: str) -> str:
    fd = open_in_root(root, name, os.O_RDONLY)
    with open(fd) as stream:
        return stream.read()


@pytest.mark.parametrize("name", ["/etc/name", "etc/name", "absolute", "up", "/../../etc/name"])
def test_links_stay_inside(root: int, name: str) -> None:
    assert _read(root, name) == "inside"


def test_what_is_outside_is_not_there(root: int) -> None:
    with pytest.raises(FileNotFoundError):
        open_in_root(root, "out", os.O_RDONLY)


def test_flags_that_open_ignores(root: int) -> None:
    os.close(open_in_root(root, "/etc", _O_PATH | os.O_RDWR | os.O_DIRECTORY, 0o600))
    os.close(open_in_root(root, "/etc/new", os.O_CREAT | os.O_RDWR, 0o600))
