"""Where a page server keeps what comes, until all has come."""

import os
from pathlib import Path
from typing import cast

import pytest

from torpor.engine.sets import settling
from torpor.engine.sets.places import place_inside
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import StoreError
from torpor.images.store import store_one
from torpor.migrate import receiving, wire
from torpor.migrate.connection import Connection
from torpor.migrate.receiving import Staging


def test_a_dump_into_the_same_directory_leaves_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It clears up before it begins, just when the server whom it has connected to begins too."""
    met: list[str] = []

    def make(name: str, mode: int, *, dir_fd: int) -> None:
        mkdir(name, mode, dir_fd=dir_fd)
        if not met:
            met.append(name)
            settling.settle(place_inside(tmp_path))

    mkdir = os.mkdir
    monkeypatch.setattr(os, "mkdir", make)
    with Staging(str(tmp_path)) as staging:
        settling.settle(place_inside(tmp_path))
        store_one(staging.store, "FS", m.fs_entry(cwd_id=1, root_id=2), 7)
        staging.publish()
    assert met
    assert [path.name for path in tmp_path.iterdir()] == ["fs-7.img"]


def test_a_directory_that_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(name: str, mode: int, *, dir_fd: int) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "mkdir", make)
    with pytest.raises(StoreError, match="pages cannot be taken there: Read-only"):
        Staging(str(tmp_path))


class _Opening:
    """A client who opens one page map after the other and never sends a page."""

    name = "somebody"

    def __init__(self, n_maps: int) -> None:
        commands = [*[wire.OPEN] * n_maps, wire.CLOSE]
        self._left = [
            wire.Message(command, whose=wire.whose_is(kinds.PAGEMAP, number))
            for number, command in enumerate(commands, 1)
        ]

    def next_message(self, within_s: float) -> wire.Message:
        return self._left.pop(0)

    def send(self, parts: list[bytes]) -> None:
        pass

    def end(self) -> None:
        pass


def test_a_client_has_no_more_than_so_many_files_made(tmp_path: Path) -> None:
    assert receiving.take(cast(Connection, _Opening(3)), str(tmp_path)) == 0
    before = sorted(os.listdir(tmp_path))
    assert "pagemap-3.img" in before
    with pytest.raises(wire.WireError, match=r"pagemap-16385\.img is one too many"):
        receiving.take(cast(Connection, _Opening(17000)), str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == before
