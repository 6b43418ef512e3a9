"""Running an engine's command: what it leaves behind, and what becomes of it when we are interrupted."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from torpor.base.errors import EngineError
from torpor.containers.commands import run


class Stop(BaseException):
    """What our signal handler raises."""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The engine "engine": a shell script that the test writes; beside it the pipes `started` and `go`."""
    path = tmp_path / "engine"
    path.touch(0o755)
    monkeypatch.setenv("TORPOR_ENGINE", str(path))
    for name in ("started", "go"):
        os.mkfifo(tmp_path / name)
    return path


@pytest.fixture
def stop_signal() -> Iterator[signal.Signals]:
    def handler(number: int, frame: FrameType | None) -> None:
        raise Stop

    before = signal.signal(signal.SIGUSR1, handler)
    yield signal.SIGUSR1
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("to_its_end", [True, False])
def test_an_interruption_ends_the_command_or_lets_it_finish(
    script: Path, stop_signal: signal.Signals, to_its_end: bool
) -> None:
    here = script.parent
    script.write_text(
        f"#!/bin/sh\ntrap 'echo told > {here}/told; exit 3' INT\n"
        f"echo > {here}/started\nread line < {here}/go\necho done > {here}/done\n"
    )

    def interrupt() -> None:
        (here / "started").read_text()
        os.kill(os.getpid(), stop_signal)
        if to_its_end:
            (here / "go").write_text("go\n")

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Stop):
        run("engine", to_its_end=to_its_end)
    thread.join()
    assert (here / "done").exists() == to_its_end
    assert (here / "told").exists() != to_its_end


def test_what_a_command_leaves_running_is_not_waited_for(script: Path) -> None:
    here = script.parent
    script.write_text(f"#!/bin/sh\n(read line < {here}/go) &\necho made\n")
    assert run("engine") == "made\n"
    (here / "go").write_text("go\n")


def test_one_that_does_not_answer_is_an_error(script: Path) -> None:
    script.write_text(f"#!/bin/sh\nread line < {script.parent}/go\n")
    with pytest.raises(EngineError, match="does not answer"):
        run("engine", "list", timeout_s=0.2)


def test_one_that_is_not_here_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORPOR_ENGINE", "/nowhere")
    with pytest.raises(EngineError, match="there is no engine"):
        run("engine")
