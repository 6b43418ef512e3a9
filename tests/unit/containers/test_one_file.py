"""One file of a container's checkpoint, by engines of ours in the place of runc and Docker."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from torpor.base.errors import EngineError, RefusedError, TorporError
from torpor.containers import note, oci, one_file, waking
from torpor.containers.model import Container, Restored, Words
from torpor.images import pack


class Engine:
    """Writes a directory as that engine does."""

    def __init__(self, folder: str) -> None:
        self.folder, self.was_called = folder, False

    def checkpoint(self, container: Container, output: Path | None, words: Words) -> str:
        assert output is not None and not words
        self.was_called = True
        images = output / self.folder
        images.mkdir(parents=True)
        (images / "inventory.img").write_bytes(b"images")
        note.write(output, container)
        return str(output)


def _container(engine: str) -> Container:
    return Container(engine, "web", "ab" * 32, "running", pid=os.getpid())


@pytest.mark.parametrize(("engine", "folder"), [("runc", ""), ("docker", "checkpoint")])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.zst"])
def test_there_and_back(engine: str, folder: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    container, output = _container(engine), tmp_path / f"web{suffix}"
    assert one_file.is_wanted(container, output) and not one_file.is_wanted(container, tmp_path / "web")
    one_file.checkpoint(Engine(folder), container, output, [])  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == [output.name]
    assert pack.is_of_container(output)
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "state"))

    def restore(directory: Path, told: note.Note, *_: object) -> list[Restored]:
        assert (directory / "inventory.img").read_bytes() == b"images"
        assert (told.engine, told.name, told.id) == (engine, "web", container.id)
        return [Restored(container)]

    monkeypatch.setattr(waking, "restore_directory", restore)
    (made,) = one_file.restore(output, None, 1, [])
    assert made.container == container


@pytest.mark.parametrize("engine", one_file.ENGINES)
def test_the_container_runs_on_where_there_is_no_room(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Room(NamedTuple):
        f_bavail: int
        f_frsize: int

    monkeypatch.setattr(os, "statvfs", lambda _place: Room(1 << 10, 1 << 10))
    writer = Engine("")
    with pytest.raises(RefusedError, match=r"web needs up to .* where 1\.0 MiB are free"):
        one_file.checkpoint(writer, _container(engine), tmp_path / "web.tar.gz", [])  # type: ignore[arg-type]
    assert not writer.was_called and not os.listdir(tmp_path)


@pytest.mark.parametrize("when", ["engine", "engine, late", "archive"])
@pytest.mark.parametrize("runs_on", [True, False])
def test_what_fails_removes_what_is_not_all_that_there_is(
    when: str, runs_on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "web.tar"
    output.write_bytes(b"earlier")

    class Failing(Engine):
        def checkpoint(self, container: Container, output: Path | None, words: Words) -> str:
            assert output is not None
            if when == "engine":
                output.mkdir()
                (output / "dump.log").write_text("no")
            else:
                super().checkpoint(container, output, words)
            if when != "archive":
                raise EngineError("no")
            return ""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pack, "send", full)
    container = replace(_container("runc"), pid=os.getpid() if runs_on else 0)
    with pytest.raises(TorporError) as caught:
        one_file.checkpoint(Failing(""), container, output, [])  # type: ignore[arg-type]
    assert output.read_bytes() == b"earlier"
    stays = when == "engine, late" or not runs_on
    assert sorted(os.listdir(tmp_path)) == ["web.tar", *["web.tar.images"] * stays]
    if when == "archive":
        assert ("runs on" if runs_on else "wakes it") in caught.value.describe()


@pytest.mark.parametrize("has_earlier", [True, False])
@pytest.mark.parametrize("when", ["before", "while"])
def test_a_note_has_its_room_before_anything_ends(
    when: str, has_earlier: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_earlier:
        note.write(tmp_path, _container("docker"))
    before, real, called = note.read(tmp_path), os.write, []

    def full(fd: int, data: bytes) -> int:
        real(fd, data[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def run(*_: object, **__: object) -> str:
        called.append(when)
        if when == "while":
            raise EngineError("no")
        return ""

    monkeypatch.setattr(oci, "run", run)
    if when == "before":
        monkeypatch.setattr(os, "write", full)
    with pytest.raises((EngineError, OSError)):
        oci.OciRuntime("runc").checkpoint(_container("runc"), tmp_path, [])
    assert called == ["while"] * (when == "while")
    assert note.read(tmp_path) == before and os.listdir(tmp_path) == [note.NAME] * has_earlier
    monkeypatch.undo()
    monkeypatch.setattr(oci, "run", lambda *_, **__: "")
    oci.OciRuntime("runc").checkpoint(_container("runc"), tmp_path, [])
    found = note.read(tmp_path)
    assert found is not None and found.engine == "runc" and os.listdir(tmp_path) == [note.NAME]
