"""Files of unix sockets: where they are now, whatever name was bound; and who sent what waits in them."""

import os
import socket
import tempfile
from pathlib import Path

import pytest

from harness import engine
from harness.events import ProcessWatch, become_subreaper, time_limit_s
from harness.scripts import awaited

pytestmark = pytest.mark.root

_PROGRAM = """
import os, signal, socket, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.chdir(sys.argv[2])
def bound(name, kind=socket.SOCK_STREAM):
    s = socket.socket(socket.AF_UNIX, kind)
    s.bind(name)
    if kind == socket.SOCK_STREAM:
        s.listen(5)
    return s
{body}
os.write(int(sys.argv[1]), b"x")
os.close(int(sys.argv[1]))
signal.sigwait([signal.SIGUSR1])
{after}
"""
_CASES = {
    "renamed": ("s = bound('a'); os.rename('a', 'now')", ["now"]),
    "moved": ("os.mkdir('d'); s = bound('a'); os.rename('a', 'd/now')", ["d/now"]),
    "link": ("os.mkdir('d'); os.symlink('d', 'l'); s = bound(os.getcwd() + '/l/now')", ["d/now", "l/now"]),
    "parents": ("os.mkdir('d'); os.chdir('d'); s = bound('../now'); os.chdir('..')", ["now"]),
    "two names": ("s = bound('a'); os.link('a', 'now')", ["a", "now"]),
    "other name": ("s = bound('a'); os.link('a', 'now'); os.unlink('a')", ["now"]),
    "no utf-8": ("os.mkdir(b'\\xff'); os.chdir(b'\\xff'); s = bound(b'\\xfe'); os.chdir('..')", ["\udcff/\udcfe"]),
}


def _run(directory: str, body: str, after: str, *, is_gone: bool) -> int:
    become_subreaper()
    images = Path(directory) / "images"
    images.mkdir()
    with awaited(_PROGRAM.format(body=body, after=after), directory) as process:
        for cycle in range(2):
            engine.dump(process.pid, images)
            if not cycle:
                process.wait()
            else:
                os.waitpid(process.pid, 0)
            if is_gone:
                for path in Path(directory).rglob("*"):
                    if path.is_socket():
                        path.unlink()
            engine.restore(images)
        return process.pid


@pytest.mark.parametrize("is_gone", [False, True])
@pytest.mark.parametrize("case", _CASES)
def test_the_file_is_where_it_was(case: str, is_gone: bool) -> None:
    body, names = _CASES[case]
    with tempfile.TemporaryDirectory() as directory:
        pid = _run(directory, body, "", is_gone=is_gone)
        try:
            for name in names:
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(os.path.join(directory, name))
            assert not [name for name in os.listdir(directory) if name.startswith(".torpor")]
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def test_messages_come_from_whom_they_came() -> None:
    body = """
srv = bound('srv', socket.SOCK_DGRAM)
one, two, gone = (bound(n, socket.SOCK_DGRAM) for n in ('one', 'two', 'gone'))
hidden = bound(b'\\0hidden-%d' % os.getpid(), socket.SOCK_DGRAM)
for s in (one, two, gone, hidden):
    s.sendto(b'x', 'srv')
gone.close()
"""
    after = """
found = [srv.recvfrom(10)[1] for _ in range(4)]
srv.sendto(b'y', found[0])
ok = found == ['one', 'two', 'gone', b'\\0hidden-%d' % os.getpid()] and one.recv(10) == b'y'
open('said', 'w').write(repr(found) if not ok else 'ok')
os.rename('said', 'done')
"""
    with tempfile.TemporaryDirectory() as directory:
        pid = _run(directory, body, after, is_gone=False)
        with ProcessWatch(pid) as watch:
            os.kill(pid, 10)
            assert watch.wait_ended(time_limit_s(20))
        os.waitpid(pid, 0)
        assert (Path(directory) / "done").read_text() == "ok"
