"""A whole set of images gets more of them: at once, or not at all, whoever is killed meanwhile."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from torpor.engine.sets import writing
from torpor.engine.sets.places import Place, place_inside, place_whole
from torpor.engine.sets.reading import open_set
from torpor.engine.sets.writing import NewSet
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import StoreError
from torpor.images.store import store_one

PLACES: dict[str, Callable[[Path], Place]] = {"beside": place_whole, "inside": place_inside}


def _new(path: Path, kind: str) -> NewSet:
    path.mkdir(exist_ok=True)
    new = NewSet(PLACES[kind](path))
    _write(new, "first")
    return new


def _write(new: NewSet, text: str) -> None:
    for name in ("pages-1.img", "torpor-job.json"):
        with new.store.open_write(name) as stream:
            stream.write(text.encode())
    store_one(new.store, "INVENTORY", m.inventory_entry(img_version=1, dump_criu_run_id=new.ident))
    new.seal()
    new.place()


def _content(path: Path) -> dict[str, str]:
    with open_set(path) as store:
        names = [name for name in store.names() if name != kinds.INVENTORY.file_name()]
        found = {}
        for name in names:
            with store.open_read(name) as stream:
                found[name] = stream.read().decode()
        return found


FIRST = {"pages-1.img": "first", "torpor-job.json": "first"}
SECOND = {"pages-2.img": "second", "torpor-job.json": "first"}


def _amend(new: NewSet) -> None:
    with new.amended() as store:
        with store.open_write("pages-2.img") as stream:
            stream.write(b"second")
        store.delete("pages-1.img")


@pytest.mark.parametrize("kind", PLACES)
def test_what_is_written_anew_takes_its_place(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "images"
    with _new(path, kind) as new:
        _amend(new)
        assert _content(path) == SECOND
        new.is_last = True
        new.finish()
    assert _content(path) == SECOND
    left = [name for name in os.listdir(tmp_path) + os.listdir(path) if name.startswith(".")]
    assert left in ([], [".torpor-link"])


@pytest.mark.parametrize("kind", PLACES)
def test_an_earlier_set_is_gone_as_well(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "images"
    with _new(path, kind) as new:
        new.finish()
    with _new(path, kind) as new:
        _amend(new)
        new.is_last = True
        new.finish()
    assert _content(path) == SECOND
    assert [name for name in os.listdir(tmp_path) if name != "images"] == []


@pytest.mark.parametrize("kind", PLACES)
def test_what_fails_leaves_it_as_it_was(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "images"
    with _new(path, kind) as new:
        with pytest.raises(RuntimeError), new.amended() as store:
            store.delete("pages-1.img")
            raise RuntimeError("the disk is full")

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as context:
            context.setattr(writing, "secure", full)
            with pytest.raises(StoreError, match="No space left"):
                _amend(new)
        assert _content(path) == FIRST
        _amend(new)
        assert _content(path) == SECOND
        new.is_last = True
        new.finish()


@pytest.mark.parametrize("call", ["link", "rename", "fsync", "unlink", "scandir", "rmdir"])
@pytest.mark.parametrize("kind", PLACES)
def test_whoever_is_killed_meanwhile_leaves_one_or_the_other(kind: str, call: str, tmp_path: Path) -> None:
    """Before each of these calls; and whoever comes next finds one whole set."""
    for number in range(1, 40):
        path = tmp_path / f"images{number}"
        path.mkdir()
        if (child := os.fork()) == 0:
            try:
                with _new(path, kind) as new:
                    _be_killed_at(call, number)
                    _amend(new)
                    new.is_last = True
                    new.finish()
            finally:
                os._exit(0)
        is_killed = os.waitpid(child, 0)[1] == signal.SIGKILL
        assert _content(path) in ((FIRST, SECOND) if is_killed else (SECOND,)), number
        if not is_killed:
            return
    raise AssertionError("there is no end of it")


def _be_killed_at(call: str, number: int) -> None:
    real, count = getattr(os, call), 0

    def counted(*arguments: object, **words: object) -> object:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **words)

    setattr(os, call, counted)
