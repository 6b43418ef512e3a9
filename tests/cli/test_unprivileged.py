"""An ordinary user with CAP_CHECKPOINT_RESTORE dumps and restores a process of their own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.events import ProcessWatch, become_subreaper, time_limit_s
from harness.skips import missing
from torpor.base.ids import Pid
from torpor.kernel.procfs.stat import read_stat
from torpor.kernel.procfs.task import read_children

pytestmark = pytest.mark.root
_USER = 12345
# To read the program and the engine wherever they lie; what is tested is the other one.
_CAPS = "+checkpoint_restore,+dac_read_search"


def _as_user(*words: str) -> list[str]:
    if shutil.which("setpriv") is None:
        missing("the command setpriv (Debian: util-linux)")
    return ["setpriv", "--reuid", str(_USER), "--regid", str(_USER), "--clear-groups", *words]


@pytest.fixture
def images() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="torpor-user-"))
    os.chown(directory, _USER, _USER)
    yield directory
    shutil.rmtree(directory)


def _criu(*words: str, caps: str = _CAPS) -> "subprocess.CompletedProcess[str]":
    engine = [sys.executable, "-m", "torpor.cli.criu.main", *words]
    line = _as_user("--inh-caps", caps, "--ambient-caps", caps, *engine)
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd="/", timeout=time_limit_s(60))


def test_a_process_of_ones_own(images: Path) -> None:
    become_subreaper()
    null = subprocess.DEVNULL
    process = subprocess.Popen(
        _as_user("sleep", "1000"), stdin=null, stdout=null, stderr=null, start_new_session=True, cwd="/"
    )
    try:
        with open(f"/proc/{process.pid}/comm", encoding="ascii") as stream:
            while stream.read() != "sleep\n":  # setpriv has not executed it yet
                stream.seek(0)
        place = ("--unprivileged", "-D", str(images), "-v4")
        done = _criu("dump", "-t", str(process.pid), "-o", "dump.log", *place)
        assert done.returncode == 0, (images / "dump.log").read_text()
    finally:
        process.kill()
        process.wait()
    done = _criu("restore", "-d", "--pidfile", "pid", "-o", "restore.log", *place)
    assert done.returncode == 0, (images / "restore.log").read_text()
    with ProcessWatch(process.pid) as restored:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        assert f"Uid:\t{_USER}\t" in status and "CapEff:\t0000000000000000" in status
        restored.signal(signal.SIGKILL)
        assert restored.wait_ended(time_limit_s(10))
        restored.reap()


def test_children_that_have_ended(images: Path) -> None:
    """Their parent, who has not waited for them yet, hears how: by an exit, by a signal, by one that leaves a core."""
    become_subreaper()
    for name in ("end", "go"):
        os.mkfifo(images / name)
        shutil.chown(images / name, _USER, _USER)
    script = """
        sh -c 'read end <end; exit 7' & a=$!
        sh -c 'read end <end; kill -KILL $$' & b=$!
        sh -c 'read end <end; kill -ABRT $$' & c=$!
        echo all; read go <go; wait $a; echo $?; wait $b; echo $?; wait $c; echo $?
    """
    null = subprocess.DEVNULL
    with open(images / "said", "xb") as said:
        os.fchown(said.fileno(), _USER, _USER)
        parent = subprocess.Popen(
            _as_user("sh", "-c", script), stdin=null, stdout=said, stderr=null, start_new_session=True, cwd=images
        )
    place = ("--unprivileged", "-D", str(images), "-v4")
    try:
        deadline = time.monotonic() + time_limit_s(10)
        while not (images / "said").stat().st_size:  # from here on it waits for none until it is told to
            assert time.monotonic() < deadline
        children = read_children(Pid(parent.pid))
        with open(images / "end", "wb", buffering=0) as end:
            end.write(b"\n" * 3)
            while [read_stat(child).state for child in children] != ["Z"] * 3:
                assert time.monotonic() < deadline
        done = _criu("dump", "-t", str(parent.pid), "-o", "dump.log", *place)
        assert done.returncode == 0, (images / "dump.log").read_text()
    finally:
        parent.kill()
        parent.wait()
        for child in children:
            os.waitpid(child, 0)
    done = _criu("restore", "-d", "-o", "restore.log", *place)
    assert done.returncode == 0, (images / "restore.log").read_text()
    with ProcessWatch(parent.pid) as restored:
        (images / "go").write_text("go\n", encoding="ascii")
        assert restored.wait_ended(time_limit_s(10))
        restored.reap()
    assert (images / "said").read_text(encoding="ascii").split() == ["all", "7", "137", "134"]


@pytest.mark.parametrize("kind", ["connection", "name"])
def test_sockets_that_only_root_can_read_are_refused_before_the_freeze(kind: str, images: Path) -> None:
    become_subreaper()
    program = {
        "connection": "l = socket.create_server(('127.0.0.1', 0)); "
        "c = socket.create_connection(l.getsockname()); a = l.accept()",
        "name": "l = socket.socket(socket.AF_UNIX); l.bind('name'); l.listen()",
    }[kind]
    script = f"import os, socket, time; {program}; os.close(os.open('up', os.O_CREAT | os.O_WRONLY)); time.sleep(1000)"
    null = subprocess.DEVNULL
    # It needs the right to read where the interpreter lies.
    line = _as_user(
        "--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search", sys.executable, "-c", script
    )
    process = subprocess.Popen(line, stdin=null, stdout=null, stderr=null, start_new_session=True, cwd=images)
    try:
        deadline = time.monotonic() + time_limit_s(10)
        while not (images / "up").exists():
            assert time.monotonic() < deadline
        place = ("--unprivileged", "--tcp-established", "-D", str(images), "-v4", "-o", "dump.log")
        done = _criu("dump", "-t", str(process.pid), *place)
        said = (images / "dump.log").read_text()
        assert done.returncode != 0
        assert "CAP_NET_ADMIN" in said and "dump: stop" not in said and "Traceback" not in said, said
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_a_process_of_somebody_else_is_refused(images: Path) -> None:
    done = _criu("dump", "--unprivileged", "-t", str(os.getpid()), "-D", str(images), "-o", "dump.log")
    assert done.returncode != 0
    assert "Traceback" not in (images / "dump.log").read_text()


def test_who_may_nothing_is_told_what_is_lacking(images: Path) -> None:
    """A process of their own, and another's; then images that root has made of it."""
    null, caps = subprocess.DEVNULL, "+dac_read_search"
    place = ("--unprivileged", "-D", str(images), "-o", "log")
    become_subreaper()
    with subprocess.Popen(
        _as_user("sleep", "1000"), stdin=null, stdout=null, stderr=null, start_new_session=True, cwd="/"
    ) as process:
        try:
            for pid in (process.pid, os.getpid()):
                done = _criu("dump", "-t", str(pid), *place, caps=caps)
                assert done.returncode == 1
                assert "a checkpoint needs CAP_CHECKPOINT_RESTORE" in (images / "log").read_text()
            root = [sys.executable, "-m", "torpor.cli.criu.main", "dump", "-t", str(process.pid), "-D", str(images)]
            subprocess.run(root, check=True, timeout=time_limit_s(60))
        finally:
            process.kill()
    for path in images.iterdir():
        os.chown(path, _USER, _USER)
    done = _criu("restore", "-d", *place, caps=caps)
    assert done.returncode == 1
    assert "needs CAP_CHECKPOINT_RESTORE" in (images / "log").read_text()
