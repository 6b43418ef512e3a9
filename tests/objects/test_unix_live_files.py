"""The file of a unix socket that lives is never taken away by a restore, also of one in another network namespace."""

import os
import socket
import subprocess
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from harness import engine
from harness.scripts import awaited

pytestmark = pytest.mark.root

_BIND = {
    "listening": "s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM); s.bind(path); s.listen(5)",
    "not listening": "s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM); s.bind(path)",
    "datagrams": "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(path)",
    "packets": "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind(path); s.listen(5)",
}
_PROGRAM = """
import os, signal, socket, sys
path = sys.argv[2]
{body}
os.write(int(sys.argv[1]), b"x")
os.close(int(sys.argv[1]))
signal.pause()
"""


def _running(body: str, path: Path, *prefix: str) -> "AbstractContextManager[subprocess.Popen[bytes]]":
    return awaited(_PROGRAM.format(body=body), path, prefix=prefix)


@pytest.mark.parametrize("prefix", [(), ("unshare", "-n")], ids=["here", "elsewhere"])
@pytest.mark.parametrize("how", _BIND)
def test_a_living_socket_stays(how: str, prefix: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        images, path = Path(directory) / "images", Path(directory) / "socket"
        images.mkdir()
        with _running(_BIND["listening"], path) as target:
            engine.dump(target.pid, images)
        path.unlink()
        with _running(_BIND[how], path, *prefix):
            before = path.stat()
            with pytest.raises(engine.EngineError) as caught:
                engine.restore(images)
            assert "is in use" in caught.value.log
            assert (path.stat().st_ino, path.stat().st_mode) == (before.st_ino, before.st_mode)
        # Now it is dead, and in nobody's way.
        pid = engine.restore(images)
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
        finally:
            os.kill(pid, 9)
