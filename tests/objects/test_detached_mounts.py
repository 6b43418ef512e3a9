"""Mounts that are nowhere but in a descriptor are refused by name; roots of other mounts are carried as before."""

import ctypes
import os
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from harness import engine
from harness.scripts import awaited
from harness.skips import missing

pytestmark = pytest.mark.root

_PROGRAM = """
import ctypes, os, signal, sys
libc, path = ctypes.CDLL(None), sys.argv[2].encode()
{body}
assert fd >= 0
os.write(int(sys.argv[1]), b"x")
os.close(int(sys.argv[1]))
signal.pause()
"""
_CLONE = "fd = libc.syscall(428, -100, {path}, 1)"
_DETACHED = {
    "a copy": _CLONE.format(path="path"),
    "a copy of the root": _CLONE.format(path="b'/'"),
    "a new one": "made = libc.syscall(430, b'tmpfs', 0); libc.syscall(431, made, 6, 0, 0, 0);"
    " fd = libc.syscall(432, made, 0, 0); os.close(made)",
}
_TAKEN_AWAY = """
assert not libc.mount(path, path, None, 4096, None)
fd = os.open(path, os.O_PATH)
assert not libc.umount2(path, 2)
"""


def _running(body: str, path: Path, *prefix: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return awaited(_PROGRAM.format(body=body), path, prefix=prefix)


def _can_be_told() -> bool:
    """Whether this kernel copies detached mounts (6.15): by that they are known."""
    libc = ctypes.CDLL(None, use_errno=True)
    made = libc.syscall(428, -100, b"/", 1)
    copy = libc.syscall(428, made, b"", 0x1001)
    for fd in (made, copy):
        if fd >= 0:
            os.close(fd)
    return bool(copy >= 0)


@pytest.mark.parametrize("prefix", [(), ("unshare", "-m")], ids=["here", "elsewhere"])
@pytest.mark.parametrize("how", _DETACHED)
def test_a_detached_mount_is_refused(how: str, prefix: tuple[str, ...], tmp_path: Path) -> None:
    if not _can_be_told():
        missing("a kernel that tells detached mounts from those that were taken away (6.15)")
    with _running(_DETACHED[how], tmp_path, *prefix) as target:
        with pytest.raises(engine.EngineError) as caught:
            engine.dump(target.pid, tmp_path)
        assert "a mount that is nowhere" in caught.value.log
        assert "dump: stop" not in caught.value.log
        assert target.poll() is None


def test_the_root_is_carried(tmp_path: Path) -> None:
    with _running("fd = os.dup2(os.open('/', os.O_PATH), 100)", tmp_path) as target:
        engine.dump(target.pid, tmp_path)
    pid = engine.restore(tmp_path)
    try:
        assert os.path.samestat(os.stat(f"/proc/{pid}/fd/100"), os.stat("/"))
    finally:
        os.kill(pid, 9)


def test_one_that_was_taken_away_is_none(tmp_path: Path) -> None:
    with _running(_TAKEN_AWAY, tmp_path) as target:
        try:
            engine.dump(target.pid, tmp_path)
        except engine.EngineError as error:  # there is a limit to where names are looked for
            assert "a mount that is nowhere" not in error.log
