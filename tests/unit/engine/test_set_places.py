"""Putting a set of images into its place, once more after somebody was killed while removing what it came from."""

import os
from pathlib import Path

import pytest

from torpor.base.records import replace
from torpor.engine.sets.places import Inside
from torpor.images import manifest

FILES = ("core-1.img", "inventory.img", "pstree.img")


@pytest.mark.parametrize("left", [FILES, FILES[1:], FILES[:1], FILES[::2], ()])
def test_what_was_removed_already_is_in_its_place(tmp_path: Path, left: tuple[str, ...]) -> None:
    staging = tmp_path / ".torpor-x.whole"
    staging.mkdir()
    for name in FILES:
        (tmp_path / name).write_text(name)
    for name in left:
        os.link(tmp_path / name, staging / name)
    made = replace(
        manifest.made_here("x", "a test", "0"), files={name: manifest.Content(len(name), None) for name in FILES}
    )
    place = Inside(os.open(tmp_path, os.O_RDONLY), str(tmp_path))
    fd = os.open(staging, os.O_RDONLY)
    try:
        place.put(fd, staging.name, made)
    finally:
        os.close(fd)
        place.close()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: name for name in FILES}
