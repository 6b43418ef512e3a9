"""A new set whose placing is interrupted: the earlier one or the new one is whole, at every call on the way.

By an exception, and by the end of the process (SIGKILL); where the file system knows no links, and no exchange.
"""

import errno
import functools
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
from torpor.images import manifest
from torpor.images import messages as m
from torpor.images.store import store_one
from torpor.kernel import rename

N_STEPS = 50
STEPS = ("link", "rename", "unlink", "fsync", "rmdir")


class _Stop(BaseException):
    """As Ctrl-C raises."""


def _place_early(path: Path) -> Place:
    """Into place as soon as it is sealed, since somebody is told then."""
    place = place_inside(path)
    _early.append(place)
    return place


_early: list[Place] = []


def _write(place: Place, n_images: int) -> str:
    with NewSet(place, "test") as new:
        for number in range(n_images):
            store_one(new.store, "FS", m.fs_entry(cwd_id=1, root_id=2), number)
        entry = m.inventory_entry(img_version=2, dump_criu_run_id=new.ident)
        entry.root_ids.CopyFrom(m.task_kobj_ids_entry(vm_id=1, files_id=1, fs_id=1, sighand_id=1))
        store_one(new.store, "INVENTORY", entry)
        new.seal()
        if place in _early:
            new.place()
        new.finish()
        return new.ident


def _faults(directory: Path) -> tuple[str, list[str]]:
    with open_set(directory) as found:
        assert found.manifest is not None
        names = list(found.manifest.files)
        return found.manifest.ident, [name for name in names if found.fault_of(name)]


@pytest.fixture
def stopped_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, Callable[[], None]], None]]:
    """Have something else happen instead of the n-th call that changes a directory."""
    left: list[Any] = [0, None]
    monkeypatch.setattr(writing, "_sync", lambda *words: None)  # it takes most of the time, and changes nothing

    def instead(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                left[1]()
            return real(*words, **more)

        return call

    monkeypatch.setattr(os, "fsync", lambda fd: None)
    for name in STEPS:
        monkeypatch.setattr(os, name, instead(getattr(os, name)))
    monkeypatch.setattr(rename, "exchange", instead(rename.exchange))

    def arm(step: int, happens: Callable[[], None]) -> None:
        left[:] = [step, happens]

    yield arm


def _nothing() -> None:
    pass


def _write_interrupted(place: Place, n_images: int, how: str, arm: Callable[[Callable[[], None]], None]) -> bool:
    """Whether it was interrupted before it had come to its end."""
    if how == "killed":
        child = os.fork()
        if not child:
            try:
                arm(lambda: os._exit(9))
                _write(place, n_images)
            finally:
                os._exit(0)
        place.close()
        return bool(os.waitpid(child, 0)[1])
    error = {"Ctrl-C": _Stop(), "full": OSError(28, "No space left on device")}
    came: list[bool] = []

    def happens() -> None:
        came.append(True)
        raise error[how]

    arm(happens)
    with suppress(Exception, _Stop):
        _write(place, n_images)
    return bool(came)


def _unable(number: int) -> Callable[..., None]:
    def call(*words: Any, **more: Any) -> None:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize(("how", "boot"), [("Ctrl-C", ""), ("full", ""), ("killed", ""), ("killed", "another")])
@pytest.mark.parametrize("choose", [place_inside, place_whole, _place_early])
@pytest.mark.parametrize("poor", [False, True], ids=["", "poor"])
def test_one_set_is_whole_wherever_it_stops(
    choose: Callable[[Path], Place],
    how: str,
    boot: str,
    poor: bool,
    tmp_path: Path,
    stopped_at: Callable[[int, Callable[[], None]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if poor:
        monkeypatch.setattr(os, "link", _unable(errno.EPERM))
        monkeypatch.setattr(rename, "exchange", _unable(errno.EINVAL))
    met = set()
    for step in range(1, N_STEPS):
        directory = tmp_path / str(step)
        directory.mkdir()
        before = _write(choose(directory), 4)
        is_interrupted = _write_interrupted(choose(directory), 2, how, functools.partial(stopped_at, step))
        stopped_at(0, _nothing)
        with pytest.MonkeyPatch.context() as patch:
            if boot:
                patch.setattr(manifest, "boot_id", lambda: boot)
            ident, wrong = _faults(directory)
        assert not wrong, f"step {step}: {wrong}"
        met.add(ident == before)
        _write(choose(directory), 3)
        rubbish = [name for name in (*os.listdir(directory), *os.listdir(tmp_path)) if name.startswith(".")]
        assert not rubbish, f"step {step}: {rubbish}"
        assert "fs-3.img" not in os.listdir(directory)
        if not is_interrupted:
            break
    else:
        pytest.fail(f"there are more than {N_STEPS} steps")
    assert met == {True, False}


@pytest.mark.parametrize("choose", [place_inside, _place_early])
def test_the_new_set_is_on_the_disk_before_the_earlier_one_goes(
    choose: Callable[[Path], Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(choose(tmp_path), 1)
    done: list[str] = []
    real = os.unlink

    def unlink(name: str, **more: Any) -> None:
        if os.path.samestat(os.fstat(more["dir_fd"]), os.stat(tmp_path)):
            done.append(name)
        real(name, **more)

    monkeypatch.setattr(writing, "_sync", lambda *words: done.append("sync"))
    monkeypatch.setattr(os, "unlink", unlink)
    _write(choose(tmp_path), 1)
    assert done.index("sync") < done.index("inventory.img")


def test_a_set_without_sums_gets_them_from_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its dump was killed after its tree; after another boot nobody vouches for it any more."""

    def killed(*words: Any) -> None:
        raise _Stop

    for boot in ("another", ""):
        directory = tmp_path / f"set{boot}"
        with monkeypatch.context() as patch, suppress(_Stop), NewSet(place_whole(directory), "test") as new:
            patch.setattr(NewSet, "_drop", lambda self: None)
            patch.setattr(writing, "secure", killed)
            entry = m.inventory_entry(img_version=2, dump_criu_run_id=new.ident)
            entry.root_ids.CopyFrom(m.task_kobj_ids_entry(vm_id=1, files_id=1, fs_id=1, sighand_id=1))
            store_one(new.store, "INVENTORY", entry)
            new.seal()
            new.finish()
        with monkeypatch.context() as patch:
            if boot:
                patch.setattr(manifest, "boot_id", lambda: "another")
            with open_set(directory) as found:
                assert found.manifest is not None
                assert found.manifest.has_sums == (not boot)
