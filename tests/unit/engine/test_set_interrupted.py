"""A new set whose placing is interrupted: the earlier one or the new one is whole, at every call on the way."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from torpor.base.typed import Any
from torpor.engine.sets import writing
from torpor.engine.sets.places import Place, place_inside, place_whole
from torpor.engine.sets.reading import open_set
from torpor.engine.sets.writing import NewSet
from torpor.images import messages as m
from torpor.images.store import store_one

N_STEPS = 50
STEPS = ("link", "rename", "unlink", "fsync", "rmdir")


class _Stop(BaseException):
    """As Ctrl-C raises."""


def _write(place: Place, n_images: int) -> str:
    with NewSet(place, "test") as new:
        for number in range(n_images):
            store_one(new.store, "FS", m.fs_entry(cwd_id=1, root_id=2), number)
        entry = m.inventory_entry(img_version=2, dump_criu_run_id=new.ident)
        entry.root_ids.CopyFrom(m.task_kobj_ids_entry(vm_id=1, files_id=1, fs_id=1, sighand_id=1))
        store_one(new.store, "INVENTORY", entry)
        new.seal()
        new.finish()
        return new.ident


def _faults(directory: Path) -> tuple[str, list[str]]:
    with open_set(directory) as found:
        assert found.manifest is not None
        names = list(found.manifest.files)
        return found.manifest.ident, [name for name in names if found.fault_of(name)]


@pytest.fixture
def stopped_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, BaseException], None]]:
    """Have the n-th call that changes a directory raise instead."""
    left = [0, _Stop()]
    monkeypatch.setattr(writing, "_sync", lambda *words: None)  # it takes most of the time, and changes nothing
    real = {name: getattr(os, name) for name in STEPS}

    def instead(name: str) -> Callable[..., Any]:
        def call(*words: Any, **more: Any) -> Any:
            left[0] -= 1  # type: ignore[operator]
            if left[0] == 0:
                raise left[1]  # type: ignore[misc]
            return real[name](*words, **more)

        return call

    for name in STEPS:
        monkeypatch.setattr(os, name, instead(name))

    def arm(step: int, error: BaseException) -> None:
        left[:] = [step, error]

    yield arm


@pytest.mark.parametrize("error", [_Stop(), OSError(28, "No space left on device"), OSError(30, "Read-only")], ids=repr)
@pytest.mark.parametrize("choose", [place_inside, place_whole])
def test_one_set_is_whole_wherever_it_stops(
    choose: Callable[[Path], Place],
    error: BaseException,
    tmp_path: Path,
    stopped_at: Callable[[int, BaseException], None],
) -> None:
    met = set()
    for step in range(1, N_STEPS):
        directory = tmp_path / str(step)
        directory.mkdir()
        before = _write(choose(directory), 4)
        stopped_at(step, error)
        with suppress(Exception, _Stop):
            _write(choose(directory), 2)
        stopped_at(0, error)
        ident, wrong = _faults(directory)
        assert not wrong, f"step {step}: {wrong}"
        met.add(ident == before)
        _write(choose(directory), 3)
        rubbish = [name for name in (*os.listdir(directory), *os.listdir(tmp_path)) if name.startswith(".")]
        assert not rubbish, f"step {step}: {rubbish}"
        assert "fs-3.img" not in os.listdir(directory)
    assert met == {True, False}
