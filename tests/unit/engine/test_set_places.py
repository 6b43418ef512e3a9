"""Putting a set of images into its place, once more after somebody was killed while removing what it came from.

And making what it comes from, while somebody else clears up.
"""

import fcntl
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from torpor.base.records import replace
from torpor.engine.sets import places, settling, writing
from torpor.engine.sets.places import Inside
from torpor.engine.sets.writing import NewSet
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


@pytest.mark.parametrize("left", [FILES, FILES[1:], FILES[:1], (FILES[1],)])
def test_who_goes_on_syncs_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: tuple[str, ...]) -> None:
    """Where others have much to be written each file is synced; some of a dead one's are in their place already."""
    monkeypatch.setattr("torpor.engine.sets.writing._dirty_bytes", lambda: 1 << 50)
    staging = tmp_path / ".torpor-x.whole"
    staging.mkdir()
    for name in FILES:
        (staging / name).write_text(name)
    made = manifest.made_here("x", "a test", "0")
    made = replace(made, files={name: manifest.Content(len(name), None) for name in FILES})
    place = Inside(os.open(tmp_path, os.O_RDONLY), str(tmp_path))
    fd = os.open(staging, os.O_RDONLY)
    try:
        writing.write_manifest(fd, made, manifest.NAME)
        made = writing.secure(fd, made)
        for name in (*FILES, manifest.NAME):
            os.link(staging / name, tmp_path / name)
        for name in {*FILES} - {*left}:
            (staging / name).unlink()
        writing.finish(place, fd, staging.name, made)
    finally:
        os.close(fd)
        place.close()
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, manifest.NAME}


@pytest.mark.parametrize("when", ["made", "opened", "being removed"])
def test_a_staging_that_was_taken_for_a_dead_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """By a dump into the same directory, before it was locked: what is written into it afterwards is not lost."""
    calls: list[str] = []

    def settled() -> None:
        calls.append(when)
        if len(calls) == 1:
            settling.settle(Inside(os.open(tmp_path, os.O_RDONLY), str(tmp_path)))

    def make(name: str, mode: int, *, dir_fd: int) -> None:
        mkdir(name, mode, dir_fd=dir_fd)
        if when == "made":
            settled()

    def open_it(directory: int, name: str) -> int:
        fd = open_at(directory, name)
        if when == "opened":
            settled()
        elif when == "being removed" and not calls:
            # As if he had it locked, and we came between that and its removal.
            calls.append(when)
            taken = open_at(directory, name)
            fcntl.flock(taken, fcntl.LOCK_EX)
            threading.Thread(target=remove_soon, args=(name, taken)).start()
        return fd

    def remove_soon(name: str, taken: int) -> None:
        (tmp_path / name).rmdir()
        os.close(taken)

    mkdir, open_at = os.mkdir, places.open_at
    home = os.open(tmp_path, os.O_RDONLY)
    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", make)
        patch.setattr(places, "open_at", open_it)
        fd = places.make_staging(home, ".torpor-x")
    assert calls
    assert places.is_at(home, ".torpor-x", fd)
    other = os.open(tmp_path / ".torpor-x", os.O_RDONLY)
    assert not places.try_lock(other)
    for each in (fd, home, other):
        os.close(each)


def test_an_image_takes_five_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree of a thousand threads has two thousand of them."""
    calls: Counter[str] = Counter()

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **more: Any) -> Any:
            calls[name] += 1
            return real(*words, **more)

        return call

    for name in ("open", "close", "read", "write", "stat", "fstat", "lseek", "link", "rename", "unlink"):
        monkeypatch.setattr(os, name, counted(name, getattr(os, name)))
    monkeypatch.setattr("torpor.engine.sets.writing._sync", lambda *words: None)
    counts = []
    for number in (1, 11):
        directory = tmp_path / str(number)
        directory.mkdir()
        calls.clear()
        with NewSet(places.place_inside(directory), "a test") as new:
            new.sum_from_now_on()
            for index in range(number):
                new.store.put(f"fs-{index}.img", b"something")
            new.store.put("inventory.img", b"the last")
            new.seal()
            new.finish()
        assert len(list(directory.iterdir())) == number + 2
        counts.append(Counter(calls))
    counts[1].subtract(counts[0])
    assert +counts[1] == dict.fromkeys(("open", "write", "close", "link", "unlink"), 10)
