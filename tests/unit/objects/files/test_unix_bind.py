"""The file of a socket's name, in a directory whose owner is not to be trusted."""

import _socket
import os
import stat
from pathlib import Path

import pytest

from torpor.kernel.sockets import Socket
from torpor.objects.files.socket import unix_bind
from torpor.objects.files.socket.unix_name import Name


def _bind(path: Path, mode: int) -> None:
    name = Name(os.fsencode(path), "/", False, mode, os.getuid(), os.getgid(), times_ns=(5, 7))
    with Socket(_socket.AF_UNIX, _socket.SOCK_STREAM) as connection:
        unix_bind._bind_file(connection, name)


@pytest.mark.parametrize("mode", [0o140600, 0o140777, 0o140000])
def test_it_gets_its_mode_and_times(mode: int, tmp_path: Path) -> None:
    before = os.umask(0o77)
    try:
        _bind(tmp_path / "s", mode)
    finally:
        os.umask(before)
    info = (tmp_path / "s").lstat()
    assert info.st_mode == mode and stat.S_ISSOCK(info.st_mode) and info.st_mtime_ns == 7


def test_a_link_that_is_put_in_its_place_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary, path = tmp_path / "canary", tmp_path / "s"
    canary.touch(0o600)
    before = canary.stat()
    real = os.chown

    def swap(*words: object, **named: object) -> None:
        path.unlink()
        path.symlink_to(canary)
        real(*words, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "chown", swap)
    _bind(path, 0o140666)
    after = canary.stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
