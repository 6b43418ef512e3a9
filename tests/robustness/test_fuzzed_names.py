"""Images are strangers: restored into a mount namespace, they find nothing of the host, whatever names they say.

The tree is a prisoner in a root directory of its own that writes to all that it has.  On the host lie canaries, a
process and a socket.  10,000 inputs with `TORPOR_FULL=1`.  Each ends with an exit code, in time, in little memory, with
nothing half alive after a failure; what was restored runs on for a few rounds, and is ended; then all is looked at.
"""

import os
import random
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import engine, prison
from harness.cgroups import mounted
from harness.edited import forget_manifest
from harness.events import become_subreaper, time_limit_s
from harness.fuzzing import SCENES, Fuzzer, Names, Scene
from harness.rounds import rounds
from torpor.base.ids import Pid
from torpor.kernel.procfs.stat import read_stat
from torpor.kernel.procfs.task import read_children
from torpor.rpc.peer import load_everything

pytestmark = pytest.mark.root
_LIMIT_S = 30
_TRACEBACK = 99
_MOST_MEMORY_KB = 1 << 20
#: How long what was restored may run: until its second round, or so long if it does not get that far.
_RUNS_S = 0.2
#: What images say of control groups is put below it.
_GROUP = f"/torpor-fuzz-{os.getpid()}"
_OPTIONS = ("--link-remap", "--file-locks")


@dataclass
class Prison:
    """The prisoner's root, its images, and what of the host is to stay as it is."""

    root: Path
    images: Path
    kept: Path
    canaries: Path
    victim: "subprocess.Popen[bytes]"
    bell: int

    def reset(self) -> None:
        """The prisoner's files as they were when it was dumped."""
        shutil.rmtree(self.root / "data")
        (self.root / "data").mkdir()
        for path in self.kept.iterdir():
            if path.is_fifo():
                os.mkfifo(self.root / "data" / path.name)
            elif path.is_file():
                shutil.copy2(path, self.root / "data" / path.name)
        link = next(path for path in self.kept.iterdir() if path.name.startswith("link_remap."))
        (self.root / "data" / link.name).unlink()
        os.link(self.root / "data" / "other", self.root / "data" / link.name)
        while select.select([self.bell], [], [], 0)[0]:
            os.read(self.bell, 4096)

    def look(self) -> "list[object]":
        """All that may not change."""
        found: list[object] = []
        for path in sorted(self.canaries.rglob("*")):
            info = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            found.append((path.name, info.st_mode, info.st_uid, info.st_nlink, info.st_mtime_ns, content))
        stat = read_stat(Pid(self.victim.pid))
        found += [stat.state in "SR", stat.start_time, socket.gethostname()]
        # Others are at work here as well: only what images would make there.
        found.append([name for name in ("data", "link", "new", "hard", "disk", "bell") if os.path.lexists(f"/{name}")])
        for name in ("core_pattern", "hostname", "domainname"):
            found.append(Path(f"/proc/sys/kernel/{name}").read_text())
        return [*found, _groups()]


def _groups() -> "list[object]":
    """What hierarchies do at their roots, and what images would have made there."""
    found: list[object] = []
    for hierarchy in ("name=systemd", "pids", "memory"):
        top = mounted(hierarchy)
        found += [(top / name).exists() for name in ("inner", "a", "torpor-fuzz-outside")]
        found += [(top / name).read_text() for name in ("release_agent", "notify_on_release") if (top / name).exists()]
    return found


@pytest.fixture(scope="module")
def jail(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Prison]":
    become_subreaper()
    base = tmp_path_factory.mktemp("prison")
    canaries, root, images = base / "canaries", base / "root", base / "images"
    for directory in (canaries, images):
        directory.mkdir()
    (canaries / "file").write_text("a canary")
    (canaries / "file").chmod(0o600)
    (canaries / "script").write_text("#!/bin/sh\ntouch $(dirname $0)/ran\n")
    (canaries / "script").chmod(0o755)
    os.mkfifo(canaries / "fifo")
    (canaries / "directory").mkdir(mode=0o700)
    prison.build(root)
    bell = os.open(root / "bell", os.O_RDWR | os.O_NONBLOCK)
    victim = subprocess.Popen(["/bin/sleep", "1000000"], cwd="/", start_new_session=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(canaries / "socket"))
        listener.listen()
        pid = prison.start(root)
        assert select.select([bell], [], [], time_limit_s(30))[0], "the prisoner does not run"
        engine.dump(pid, images, options=["--root", str(root), *_OPTIONS])
        os.waitpid(pid, 0)
        kept = base / "kept"
        kept.mkdir()
        made = Prison(root, images, kept, canaries, victim, bell)
        for path in (root / "data").iterdir():
            if path.is_fifo():
                os.mkfifo(kept / path.name)
            elif path.is_file():
                shutil.copy2(path, kept / path.name)
        yield made
    _end_children(but=victim.pid)
    victim.kill()
    victim.wait()
    os.close(bell)
    for hierarchy in ("name=systemd", "pids", "memory"):
        for made_group, _, _ in os.walk(f"{mounted(hierarchy)}{_GROUP}", topdown=False):
            os.rmdir(made_group)


def _restore(jail: Prison, directory: Path) -> int:
    """`criu restore -d` in a fork of this process, which saves thousands of starts of Python; its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        signal.alarm(0)
        null = os.open("/dev/null", os.O_RDWR)
        for number in (0, 1):
            os.dup2(null, number)
        from torpor.cli.criu.main import main

        words = ["restore", "-d", "-D", str(directory), "-o", "restore.log", "-v4", "--root", str(jail.root), *_OPTIONS]
        os._exit(main([*words, "--manage-cgroups=soft", "--cgroup-root", _GROUP]))
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(_TRACEBACK)


def _wait(pid: int, what: str) -> "tuple[int, int]":
    """Exit code, and the most memory that it had in kB."""
    fd = os.pidfd_open(pid)
    try:
        in_time = select.select([fd], [], [], time_limit_s(_LIMIT_S))[0]
    finally:
        os.close(fd)
    if not in_time:
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    assert in_time, f"{what}: the restore hangs"
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss


def _living(but: int) -> "list[int]":
    return [pid for pid in read_children(Pid(os.getpid())) if pid != but and read_stat(pid).state not in "ZX"]


def _end_children(but: int) -> None:
    while children := [pid for pid in read_children(Pid(os.getpid())) if pid != but]:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _let_run(jail: Prison, pids: "list[int]") -> None:
    """Until the bell rang twice, all is over, or time is up."""
    deadline = time.monotonic() + _RUNS_S
    fds = [os.pidfd_open(pid) for pid in pids]
    rung = 0
    while rung < 2 and (left := deadline - time.monotonic()) > 0:
        ready = select.select([jail.bell, *fds], [], [], left)[0]
        if jail.bell in ready:
            rung += len(os.read(jail.bell, 4096))
        elif ready:
            break
    for fd in fds:
        os.close(fd)


def _must_end(jail: Prison, what: str) -> None:
    """What a restore that failed has left ends by itself."""
    for pid in _living(jail.victim.pid):
        fd = os.pidfd_open(pid)
        ended = select.select([fd], [], [], time_limit_s(5))[0]
        os.close(fd)
        assert ended, f"{what}: failed, but {pid} lives"


def test_the_prisoner_itself_comes_back(jail: Prison) -> None:
    jail.reset()
    before = jail.look()
    pid = engine.restore(jail.images, options=["--root", str(jail.root), *_OPTIONS])
    assert select.select([jail.bell], [], [], time_limit_s(20))[0]
    os.kill(pid, signal.SIGKILL)
    _end_children(but=jail.victim.pid)
    assert jail.look() == before


def _try(jail: Prison, directory: Path, what: str, before: "list[object]") -> bool:
    """Restore, let it run, end it, and look; whether it was restored."""
    code, memory = _wait(_restore(jail, directory), what)
    log = (directory / "restore.log").read_text(errors="replace") if (directory / "restore.log").exists() else ""
    if code == 0:
        _let_run(jail, _living(jail.victim.pid))
    else:
        _must_end(jail, what)
    _end_children(but=jail.victim.pid)
    assert code in range(3), f"{what}: exit code {code}\n{log[-3000:]}"
    assert "bug:" not in log, f"{what}\n{log[-4000:]}"
    assert memory < _MOST_MEMORY_KB, f"{what}: {memory} kB"
    assert jail.look() == before, f"{what}: the host was changed\n{log[-3000:]}"
    return code == 0


@pytest.mark.parametrize("scene", dict.fromkeys(SCENES))
def test_what_an_attacker_would_put_together(scene: "Scene", jail: Prison, tmp_path: Path) -> None:
    names = Names(jail.canaries, jail.victim.pid)
    fuzzer = Fuzzer(jail.images, names, 0)
    load_everything()
    before = jail.look()
    for seed in range(4):
        jail.reset()
        fuzzer.copy(tmp_path / "input")
        what = scene(random.Random(seed), tmp_path / "input", names)
        forget_manifest(tmp_path / "input")
        _try(jail, tmp_path / "input", what, before)


def test_nothing_of_the_host_is_found(jail: Prison, tmp_path: Path) -> None:
    n_inputs = rounds(60, 10_000)
    seed = int(os.environ.get("TORPOR_FUZZ_SEED", "20261128"))
    names = Names(jail.canaries, jail.victim.pid, numbers=[os.getpid(), os.getppid()])
    fuzzer = Fuzzer(jail.images, names, seed)
    directory = tmp_path / "input"
    load_everything()  # here, and not in each fork
    before = jail.look()
    n_restored, began = 0, time.monotonic()
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    for number in range(n_inputs):
        jail.reset()
        what = f"input {number} of seed {seed}: {fuzzer.input(directory)}"
        n_restored += _try(jail, directory, what, before)
        if number % 1000 == 999:
            print(f"{number + 1} inputs, {n_restored} restored", flush=True)
    assert n_inputs // 50 < n_restored < n_inputs
    print(f"{n_inputs} inputs, {n_restored} restored, {time.monotonic() - began:.0f} s")
