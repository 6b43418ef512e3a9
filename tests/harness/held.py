"""A program that knows of which moment its memory is, and its checkpoints in one room: of a process, of a job, criu's.

For tests that interrupt the second checkpoint. The room is a small file system of its own, so that it can be filled up
and made read-only; what runs the engine is a process of its own each time.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from harness.compiler import compiled
from harness.events import ProcessWatch, RenameWatch, become_subreaper, time_limit_s, wait_renamed
from harness.processes import MARK_VARIABLE, kill_tree, new_mark, reap_adopted

KINDS = ("job", "directory", "archive", "criu")
#: Run by a fresh engine as it would be after the machine was started again.
_OTHER_BOOT = """
import sys
from torpor.images import manifest
manifest.boot_id = lambda: "another"
sys.argv[0] = "torpor"
from torpor.cli.{module} import {function}
sys.exit({function}())
"""
_START = """
import os, sys
from torpor.engine import jobs
keep = {name: os.environ[name] for name in ("PATH", sys.argv[1])}
print(jobs.start(sys.argv[3:], "held", environment=keep, directory="/", log=sys.argv[2]).pid)
"""
_STATISTICS = ("stats-dump", "stats-restore", "dump.log", "restore.log", "torpor.manifest")


@contextmanager
def small_room(n_bytes: int = 64 << 20, n_inodes: int = 400) -> Iterator[Path]:
    """A file system of that size."""
    room = Path(tempfile.mkdtemp(prefix="torpor-room-"))
    options = f"size={n_bytes},nr_inodes={n_inodes},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", room], check=True)
    try:
        yield room
    finally:
        subprocess.run(["umount", "-l", room], check=True)
        room.rmdir()


@dataclass(frozen=True)
class Held:
    """`room` is where the checkpoints of that `kind` lie; `base` where the program's own files are."""

    kind: str
    room: Path
    base: Path
    mark: str
    watch: ProcessWatch
    #: So long the first checkpoint took.
    took_s: float = 0
    other_boot: bool = False

    def copied_to(self, room: Path) -> "Held":
        """The same after a power cut: what was in the room then is now in another."""
        return replace(self, room=room, other_boot=True)

    # -- the program ---------------------------------------------------------------------------------------------

    def next_moment(self) -> None:
        """Have the memory filled anew."""
        renames = RenameWatch(self.base / "dir")
        try:
            self.watch.signal(signal.SIGUSR1)
            told = self.base / "dir/moment"
            assert wait_renamed(renames, self.watch, told.exists, time_limit_s(10))
        finally:
            renames.close()

    def finish(self, watch: ProcessWatch) -> int:
        """End it; the moment of which its memory is, all of it."""
        came_back, status = self.base / "dir/came-back", self.base / "status"
        came_back.unlink(missing_ok=True)
        status.unlink(missing_ok=True)
        watch.signal(signal.SIGTERM)
        assert watch.wait_ended(time_limit_s(20)), "it does not end"
        reap_adopted()
        log = (self.base / "log").read_text(errors="replace")
        assert status.exists(), f"it ended without a report: {log}"
        assert status.read_text() == "pass", f"{status.read_text()}: {log}"
        return int(came_back.read_text())

    # -- the engine ----------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        # An archive is unpacked where there is room.
        state = (self.room if self.kind == "job" else self.base) / "state"
        return {**os.environ, "TORPOR_STATE": str(state)}

    def _engine(self, module: str, function: str) -> list[str]:
        if not self.other_boot:
            return [sys.executable, "-m", f"torpor.cli.{module}"]
        return [sys.executable, "-c", _OTHER_BOOT.format(module=module, function=function)]

    def _torpor(self, *words: str) -> list[str]:
        return [*self._engine("torpor", "main"), *words]

    def _criu(self, *words: str) -> list[str]:
        return [*self._engine("criu.main", "command"), *words]

    @property
    def place(self) -> Path:
        return {
            "job": self.room / "state/checkpoints/held",
            "archive": self.room / "held.tar.zst",
        }.get(self.kind, self.room / "set")

    def checkpoint_line(self, pid: int, *, leave_running: bool) -> list[str]:
        running = ["--leave-running"] if leave_running else []
        if self.kind == "criu":
            return self._criu("dump", "-t", str(pid), "-D", str(self.place), "-o", "dump.log", *running)
        if self.kind == "job":
            return self._torpor("checkpoint", "held", "--yes", *running)
        return self._torpor("checkpoint", str(pid), "--yes", "-o", str(self.place), *running)

    def checkpoint(self, watch: ProcessWatch) -> None:
        """Another one, which leaves it running."""
        self.run(self.checkpoint_line(watch.pid, leave_running=True))

    def restore(self, number: int = 0) -> ProcessWatch:
        """The newest, or that one of a job, as a copy."""
        if self.kind == "criu":
            pidfile = self.base / "pid"
            pidfile.unlink(missing_ok=True)
            self.run(self._criu("restore", "-d", "-D", str(self.place), "-o", "restore.log", "--pidfile", str(pidfile)))
            return ProcessWatch(int(pidfile.read_text()))
        if self.kind != "job":
            self.run(self._torpor("restore", str(self.place)))
            return ProcessWatch(self.watch.pid)
        words = (f"held@{number}", "--name", "copy") if number else ("held",)
        told = self.run(self._torpor("restore", *words, "--json"))
        return ProcessWatch(json.loads(told)["restored"][0]["pid"])

    def run(self, line: Sequence[str]) -> str:
        """What it says; AssertionError where it fails."""
        # Files and not pipes: what is restored may inherit them.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
            done = subprocess.run(
                line, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, env=self.environment(), check=False
            )
            out.seek(0)
            errors.seek(0)
            said, complaints = out.read(), errors.read()
        log = ""
        with suppress(OSError):
            log = "\n".join((self.place / "dump.log").read_text().splitlines()[-20:])
        assert done.returncode == 0, f"{line[-6:]}: {done.returncode}: {said}{complaints}{log}"
        return said

    # -- what lies there -----------------------------------------------------------------------------------------

    def signature(self) -> object:
        """Something that changes when the new set counts."""
        looked_at = {
            "job": [self.place / "2/torpor-job.json"],
            "criu": [self.place / "inventory.img"],
        }.get(self.kind, [self.place])
        found: list[object] = []
        for path in looked_at:
            with suppress(OSError):
                found.append(path.stat().st_ino)
        if self.kind == "criu":
            found.append(any(name.endswith(".whole") for name in os.listdir(self.place)))
        return found

    def rubbish(self) -> list[str]:
        """What lies in the room and belongs to no checkpoint."""
        found = [str(path.relative_to(self.room)) for path in self.room.rglob("*") if path.name.startswith(".")]
        found = [name for name in found if not name.endswith(("held/.last", "locks/.spare"))]
        found += [str(path) for path in (Path(self.environment()["TORPOR_STATE"]) / "unpacked").glob("*")]
        if self.kind == "archive":
            return [*found, *(name for name in os.listdir(self.room) if name != self.place.name)]
        if self.kind == "job":
            return found + [each for home in self._sets() for each in _strangers_in(home)]
        return [*found, *(name for name in os.listdir(self.room) if name != "set"), *_strangers_in(self.place)]

    def _sets(self) -> list[Path]:
        return [self.place / name / "images" for name in os.listdir(self.place) if name.isdecimal()]


def _strangers_in(home: Path) -> list[str]:
    """Files that the manifest does not know."""
    from torpor.images import manifest

    found = manifest.read(home)
    assert found is not None, home
    assert found.has_sums, home
    return [f"{home}/{name}" for name in os.listdir(home) if name not in found.files and name not in _STATISTICS]


@contextmanager
def started(kind: str, room: Path) -> Iterator[Held]:
    """It runs, and has been checkpointed once at its first moment; it is at its second now."""
    become_subreaper()
    base, mark = Path(tempfile.mkdtemp(prefix="torpor-held-")), new_mark()
    (base / "dir").mkdir()
    environment = {"PATH": os.environ["PATH"], MARK_VARIABLE: mark}
    line = [str(compiled("held")), "--status", str(base / "status"), "--dir", str(base / "dir")]
    watch: ProcessWatch | None = None
    try:
        renames = RenameWatch(base)
        pid = _start(kind, room, base, environment, line)
        watch = ProcessWatch(pid)
        assert wait_renamed(renames, watch, (base / "status").exists, time_limit_s(20))
        renames.close()
        held = Held(kind, room, base, mark, watch)
        if kind == "criu":
            held.place.mkdir()
        began = time.monotonic()
        held.checkpoint(watch)
        held.next_moment()
        yield replace(held, took_s=time.monotonic() - began)
    finally:
        kill_tree(mark, watch)
        reap_adopted()
        if watch is not None:
            watch.close()
        shutil.rmtree(base, ignore_errors=True)


def _start(kind: str, room: Path, base: Path, environment: dict[str, str], line: list[str]) -> int:
    log = base / "log"
    if kind == "job":
        inherited = {**os.environ, **environment, "TORPOR_STATE": str(room / "state")}
        words = [sys.executable, "-c", _START, MARK_VARIABLE, str(log), *line]
        return int(subprocess.run(words, env=inherited, stdout=subprocess.PIPE, text=True, check=True).stdout)
    with open(log, "ab") as out:
        process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, cwd="/", start_new_session=True
        )
    process.returncode = 0  # whoever comes reaps it: it ends, and its pid comes back
    return process.pid
