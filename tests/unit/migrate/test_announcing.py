"""Whoever brings pages later may come a little later, too."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from torpor.base.errors import TorporError
from torpor.migrate import announcing


@pytest.mark.parametrize("is_stale", [False, True])
def test_it_is_waited_for(is_stale: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / announcing.SOCKET_NAME
    server, pauses = socket.socket(socket.AF_UNIX), list[float]()
    steps: list[Callable[[], object]] = [
        lambda: place.unlink(missing_ok=True), lambda: server.bind(str(place)), server.listen,
    ]  # fmt: skip

    def step(pause_s: float) -> None:
        """Each is seen by one attempt."""
        pauses.append(pause_s)
        steps.pop(0)()

    if is_stale:
        with socket.socket(socket.AF_UNIX) as earlier:
            earlier.bind(str(place))
    monkeypatch.setattr(time, "sleep", step)
    with server, announcing.to_daemon(str(tmp_path)) as found:
        link, _ = server.accept()
        with link:
            found.restored()
            assert announcing.WORD.unpack(link.recv(4)) == (announcing.RESTORED,)
    assert len(pauses) == 3


def test_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.monotonic()]

    def sleep(pause_s: float) -> None:
        now[0] += pause_s

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    began = now[0]
    with pytest.raises(TorporError, match=r"nobody is there to bring pages later .*: No such file"):
        announcing.to_daemon(str(tmp_path))
    assert 3 < now[0] - began < 10


def test_what_can_never_be_there_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it is waited for"))
    with pytest.raises(TorporError, match=r"nobody is there to bring pages later .*: Not a directory"):
        announcing.to_daemon(str(tmp_path / "file"))
