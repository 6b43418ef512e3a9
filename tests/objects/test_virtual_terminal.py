"""A virtual terminal: its screen may be another one where the program is restored."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from harness import engine
from harness.edited import forget_manifest
from harness.skips import missing
from torpor.images import kinds
from torpor.images.store import load_all, store_all
from torpor.images.stores.directory import DirStore

pytestmark = pytest.mark.root

#: Of the kernel's 63, one that nobody looks at.
_NUMBER = 61
_PROGRAM = """
import os, signal, sys
at = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
os.dup2(at, 77)
os.write(int(sys.argv[2]), b"x")
os.close(int(sys.argv[2]))
signal.pause()
"""


@pytest.mark.parametrize("columns", [None, 40_000], ids=["same", "other"])
def test_a_size_that_the_screen_cannot_have(columns: int | None, tmp_path: Path) -> None:
    if not os.path.exists(f"/sys/class/tty/tty{_NUMBER}"):
        missing("a kernel with virtual terminals")
    node, images = tmp_path / "tty", tmp_path / "images"
    images.mkdir()
    os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(4, _NUMBER))
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(node), str(writer)], start_new_session=True, cwd="/", pass_fds=(writer,),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    with open(node) as terminal:
        size = os.get_terminal_size(terminal.fileno())
    engine.dump(process.pid, images)
    process.wait()
    if columns is not None:
        with DirStore(images, "w") as store:
            (info,) = load_all(store, kinds.TTY_INFO)
            info.winsize.ws_col = columns
            store_all(store, kinds.TTY_INFO, [info])
        forget_manifest(images)
    pid = engine.restore(images)
    try:
        assert os.stat(f"/proc/{pid}/fd/77").st_rdev == os.makedev(4, _NUMBER)
        with open(node) as terminal:
            assert os.get_terminal_size(terminal.fileno()) == size
        said = (
            f"had {size.lines} lines of {columns} characters; its screen here stays at {size.lines} of {size.columns}"
        )
        assert (said in (images / "restore.log").read_text()) == (columns is not None)
    finally:
        os.kill(pid, 9)
