"""Processes that entered the tree's pid namespace from outside, as `podman exec` does: never lost without a word."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import engine
from harness.events import ProcessWatch, become_subreaper, time_limit_s

pytestmark = pytest.mark.root
#: Its pid as it is outside, once it is there.
_SCRIPT = 'read -r pid rest < /proc/self/stat; echo $pid > "$0"; exec sleep 4321'


@dataclass
class Family:
    """A namespace's first process, and one that came from outside, with the one outside that waits for it."""

    init: int
    visitor: int
    images: Path
    waits: "subprocess.Popen[bytes]"

    def lives(self) -> bool:
        """Whether the visitor does."""
        try:
            return "4321" in Path(f"/proc/{self.visitor}/cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False


def start(fifo: Path, *line: str) -> tuple["subprocess.Popen[bytes]", int]:
    null = subprocess.DEVNULL
    words = [*line, "sh", "-c", _SCRIPT, str(fifo)]
    process = subprocess.Popen(words, stdin=null, stdout=null, stderr=null, start_new_session=True, cwd="/")
    pid = int(fifo.read_text())
    # It has told its pid, and becomes the other program then.
    while Path(f"/proc/{pid}/comm").read_text() != "sleep\n":
        os.sched_yield()
    return process, pid


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    become_subreaper()
    fifo, images = tmp_path / "fifo", tmp_path / "images"
    os.mkfifo(fifo)
    images.mkdir()
    outside, init = start(fifo, "unshare", "--pid", "--fork", "setsid")
    visitor, inner = start(fifo, "nsenter", "--pid", f"--target={init}", "setsid")
    yield Family(init, inner, images, visitor)
    with suppress(ProcessLookupError):
        os.kill(init, signal.SIGKILL)  # what is in its namespace ends with it
    for process in (outside, visitor):
        process.kill()
        process.wait()


@pytest.mark.parametrize("leave_running", [True, False])
def test_they_are_named_and_nothing_is_touched(family: Family, leave_running: bool) -> None:
    with pytest.raises(engine.EngineError) as caught:
        engine.dump(family.init, family.images, leave_running=leave_running)
    assert f"pid {family.visitor} (sleep) is in the pid namespace of pid {family.init}" in caught.value.log
    assert "/etc/criu/runc.conf" in caught.value.log
    assert family.lives()


def test_carried_they_are_children_of_the_first_process(family: Family, tmp_path: Path) -> None:
    config = tmp_path / "runc.conf"
    config.write_text("exec-processes carry\n")
    engine.dump(family.init, family.images, options=["--config", str(config)])
    assert not family.lives()
    with ProcessWatch(engine.restore(family.images)) as root:
        children = Path(f"/proc/{root.pid}/task/{root.pid}/children").read_text().split()
        assert [Path(f"/proc/{child}/cmdline").read_bytes() for child in children] == [b"sleep\x004321\0"]
        assert os.getsid(int(children[0])) == int(children[0])
        root.signal(signal.SIGKILL)
        assert root.wait_ended(time_limit_s(10))
        root.reap()


def test_left_out_they_are_named_in_the_log(family: Family) -> None:
    engine.dump(family.init, family.images, options=["--exec-processes", "leave-out"])
    log = (family.images / "dump.log").read_text()
    assert f"left out: pid {family.visitor} (sleep)" in log
    with ProcessWatch(engine.restore(family.images)) as root:
        assert not Path(f"/proc/{root.pid}/task/{root.pid}/children").read_text()
        root.signal(signal.SIGKILL)
        assert root.wait_ended(time_limit_s(10))
        root.reap()


_ENTERS = """#!/bin/sh
[ "$CRTOOLS_SCRIPT_ACTION" = {action} ] || exit 0
nsenter --pid --target={init} setsid sh -c '{script}' {fifo} < /dev/null > /dev/null 2>&1 &
"""


#: Who enters tells its pid, and becomes another program then.
_CALLED = "sh|sleep"


@pytest.fixture
def alone(family: Family) -> Family:
    """The family once the visitor has gone; `visitor` is to be another."""
    with ProcessWatch(family.visitor) as visitor:
        visitor.signal(signal.SIGKILL)
        assert visitor.wait_ended(time_limit_s(10))
    # A dead one is still there until then.
    family.waits.wait(time_limit_s(10))
    return family


def _hook(family: Family, tmp_path: Path, action: str) -> tuple[Path, Path]:
    """A script of which a process enters at that moment, and where its pid is read."""
    script, fifo = tmp_path / "hook", tmp_path / "later"
    os.mkfifo(fifo)
    # The hook ends when the other is there: it waits for whoever reads the pid that it writes.
    enters = _ENTERS.format(action=action, init=family.init, script=_SCRIPT, fifo=fifo)
    script.write_text(f"{enters}cat {fifo} > {tmp_path}/pid\n")
    script.chmod(0o700)
    return script, tmp_path / "pid"


@pytest.mark.parametrize("action", ["pre-dump", "post-dump"])
def test_who_enters_meanwhile_is_named_before_anything_ends(alone: Family, tmp_path: Path, action: str) -> None:
    script, pid = _hook(alone, tmp_path, action)
    with pytest.raises(engine.EngineError) as caught:
        engine.dump(alone.init, alone.images, options=["--action-script", str(script)])
    alone.visitor = int(pid.read_text())
    assert re.search(
        rf"pid {alone.visitor} \({_CALLED}\) is in the pid namespace of pid {alone.init}", caught.value.log
    )
    assert alone.lives()
    # Images that a hook has been shown stay, as after one that says no.
    assert (alone.images / "inventory.img").exists() == (action == "post-dump")


def test_who_enters_meanwhile_is_left_out_by_name(alone: Family, tmp_path: Path) -> None:
    script, pid = _hook(alone, tmp_path, "post-dump")
    engine.dump(alone.init, alone.images, options=["--action-script", str(script), "--exec-processes", "leave-out"])
    log = (alone.images / "dump.log").read_text()
    assert re.search(rf"left out: pid {pid.read_text().strip()} \({_CALLED}\)", log)
    with ProcessWatch(engine.restore(alone.images)) as root:
        assert not Path(f"/proc/{root.pid}/task/{root.pid}/children").read_text()
        root.signal(signal.SIGKILL)
        assert root.wait_ended(time_limit_s(10))
        root.reap()


def test_check_names_them(family: Family) -> None:
    line = [sys.executable, "-m", "torpor.cli.torpor", "check", str(family.init)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and f"pid {family.visitor} (sleep) is in the pid namespace" in done.stdout
    done = subprocess.run([*line, "--exec-processes=carry"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@dataclass(frozen=True)
class Held:
    """What a process has from outside: how it is opened, and what is said of it before anything is frozen, or lost."""

    open: Callable[[], tuple[int, ...]]
    refused: str = ""
    told: str = ""


def _terminal() -> tuple[int, ...]:
    return os.openpty()[::-1]


def _pair(kind: int) -> tuple[int, ...]:
    return tuple(end.detach() for end in socket.socketpair(socket.AF_UNIX, kind))


HELD = {
    "terminal": Held(_terminal, refused="is driven from outside of the tree, and it came from there"),
    "pipe, read": Held(os.pipe, told="the other end of pipe:"),
    "pipe, written": Held(lambda: os.pipe()[::-1], told="the other end of pipe:"),
    "stream": Held(lambda: _pair(socket.SOCK_STREAM), refused="connected to a socket outside of the tree"),
    "datagrams": Held(lambda: _pair(socket.SOCK_DGRAM), refused="connected to a socket outside of the tree"),
    "packets": Held(lambda: _pair(socket.SOCK_SEQPACKET), refused="connected to a socket outside of the tree"),
    "master": Held(os.openpty),
    "eventfd": Held(lambda: (os.eventfd(0),)),
    "directory": Held(lambda: (os.open("/", os.O_RDONLY),)),
}


@pytest.mark.parametrize("what", HELD)
def test_what_it_has_from_outside(alone: Family, tmp_path: Path, what: str) -> None:
    """Carried, or named before anything is touched; what will not be there any more is told."""
    held, fifo = HELD[what], tmp_path / "later"
    os.mkfifo(fifo)
    fds = held.open()
    line = ["nsenter", "--pid", f"--target={alone.init}", "setsid", "sh", "-c", _SCRIPT, str(fifo)]
    null = subprocess.DEVNULL
    options = ["--exec-processes=carry", "--orphan-pts-master"]
    with subprocess.Popen(line, stdin=null, stdout=fds[0], stderr=null, cwd="/") as process:
        try:
            alone.visitor = int(fifo.read_text())
            if held.refused:
                with pytest.raises(engine.EngineError, match=held.refused):
                    engine.dump(alone.init, alone.images, options=options)
                assert alone.lives()
                check = [sys.executable, "-m", "torpor.cli.torpor", "check", str(alone.init), options[0]]
                done = subprocess.run(check, capture_output=True, text=True, check=False)
                assert done.returncode == 1 and held.refused.partition(",")[0] in done.stdout
            else:
                engine.dump(alone.init, alone.images, options=options)
                assert held.told in (alone.images / "dump.log").read_text()
        finally:
            process.kill()
            for fd in fds:
                os.close(fd)
    if not held.refused:
        with ProcessWatch(engine.restore(alone.images)) as root:
            root.signal(signal.SIGKILL)
            assert root.wait_ended(time_limit_s(10))
            root.reap()


def test_a_plain_device_from_outside_is_the_same_one_inside(tmp_path: Path) -> None:
    """So has what `podman exec` starts its standard input: /dev/null of a mount that the container does not have."""
    fifo, images = tmp_path / "fifo", tmp_path / "images"
    os.mkfifo(fifo)
    images.mkdir()
    devices = "umount -l /dev; mount -t tmpfs -o size=64k none /dev && mknod -m 600 /dev/null c 1 3"
    outside, root = start(fifo, "unshare", "--mount", "sh", "-c", f'{devices}; exec "$@"', "sh")
    with outside:
        try:
            engine.dump(root, images)
        finally:
            outside.kill()
    with ProcessWatch(engine.restore(images, options=["--external", "mnt[]"])) as restored:
        assert os.readlink(f"/proc/{restored.pid}/fd/0") == "/dev/null"
        inside = os.stat(f"/proc/{restored.pid}/fd/0")
        assert (inside.st_rdev, inside.st_mode & 0o777) == (os.makedev(1, 3), 0o600)
        restored.signal(signal.SIGKILL)
        assert restored.wait_ended(time_limit_s(10))
        restored.reap()
