"""A machine under qemu: one of the lab's kernels on one of its disks does one job, and its results are here.

There is no network between host and machine, and no shared directory (Debian's cloud kernels have none): what the job
needs comes on a second disk that is a tar archive, what it made goes back on a third.  A machine that is not done in
time is ended, and one whose host process dies is killed by the kernel.
"""

import fcntl
import os
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.events import time_limit_s
from harness.machine import need_commands
from vm.disks import Image, disk
from vm.kernels import Kernel, kernel_files

_PREFIX = "torpor-lab-"
_FRESH_S = 10
#: What a machine may send back.
_N_RESULT_MEGABYTES = 256
#: Under emulation it takes two minutes to find nothing to do, and the job waits for it.
_MASKED = "systemd.mask=podman-auto-update.service"
#: From the host's command to the job, and from its end to qemu's, at most.
_AROUND_S = 120


class LabError(Exception):
    """A machine did not come to the end of its job; the text has the end of its console."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a job left: how its script ended, what it printed, and the directory with all that it put into /lab/out."""

    status: int
    output: str
    console: str
    files: Path


class LabMachine:
    """A machine that may be started several times, with other kernels, on the same disk: a context manager."""

    def __init__(self, image: Image, *, n_processors: int = 1, n_megabytes: int = 1024) -> None:
        self._n_processors, self._n_megabytes = n_processors, n_megabytes
        parent = Path(os.environ.get("TMPDIR", "/var/tmp"))
        _remove_abandoned(parent)
        self._base = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._in_use = _lock(self._base)
        self._n_runs = 0
        self._image = image
        self._disk = self._base / "disk.ext4"

    def run(
        self,
        kernel: Kernel,
        script: str,
        *,
        payload: Mapping[str, Path] | None = None,
        systemd: bool = False,
        keep: bool = False,
        words: Iterable[str] = (),
        timeout_s: float = 300,
        follow: bool = False,
    ) -> Result:
        """Boot, do the shell script *script* in /lab, and power off.

        *payload*: what lies beside it in /lab, and under `root/` what is copied into the machine's root.  *words* are
        added to the kernel's command line.  *keep*: services are stopped in order at the end, for a disk that is
        booted again.  *follow*: the console is printed as it comes.  Raises LabError if the machine does not answer in
        time; a script that fails or takes longer than *timeout_s* is a result.
        """
        if not self._n_runs:
            original = str(disk(self._image, kernel.architecture))
            subprocess.run(["cp", "--sparse=always", "--reflink=auto", original, self._disk], check=True)
        self._n_runs += 1
        base = self._base / f"run-{self._n_runs}"
        base.mkdir()
        _write_job(base / "job.tar", script, payload or {}, int(time_limit_s(timeout_s)), keep)
        with (base / "result.tar").open("wb") as file:
            file.truncate(_N_RESULT_MEGABYTES << 20)
        line = self._line(kernel, base, systemd, words)
        console = base / "console"
        _run_qemu(line, console, time_limit_s(timeout_s + _AROUND_S), follow)
        return _result(base, console.read_text(errors="replace"))

    def _line(self, kernel: Kernel, base: Path, systemd: bool, words: Iterable[str]) -> list[str]:
        machine, files = kernel.architecture, kernel_files(kernel)
        need_commands({machine.qemu: machine.qemu_package, "setpriv": "util-linux"})
        init = "/sbin/init" if systemd else "/usr/local/sbin/lab-init"
        append = f"console={machine.console} root=/dev/vda rw panic=-1 loglevel=4 {machine.kernel_words} {_MASKED}"
        append += f" init={init}"
        # With two processors 7.2 was seen to die in code that it had just rewritten: an emulator's fault.
        n_processors = 1 if kernel.name == "7.x" else self._n_processors
        # Killed with the process that waits for it, whatever that dies of.
        line = ["setpriv", "--pdeathsig", "KILL", machine.qemu, "-nodefaults", "-no-user-config", "-no-reboot"]
        line += [*machine.qemu_words, "-accel", "tcg", "-display", "none", "-serial", "stdio"]
        line += ["-smp", str(n_processors), "-m", str(self._n_megabytes)]
        line += ["-kernel", str(files / "vmlinuz"), "-initrd", str(files / "initrd")]
        line += ["-append", " ".join([append, *words])]
        for path in (self._disk, base / "job.tar", base / "result.tar"):
            line += ["-drive", f"file={path},format=raw,if=virtio,cache=unsafe"]
        return line

    def close(self) -> None:
        shutil.rmtree(self._base, ignore_errors=True)
        if self._in_use >= 0:
            os.close(self._in_use)
            self._in_use = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _lock(directory: Path) -> int:
    """A descriptor that says, as long as it is open, that the directory is in use; -1 if another says so."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return -1
    return fd


def _remove_abandoned(parent: Path) -> None:
    """The disks of machines whose host process was killed."""
    for directory in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            # One that was made just now is about to be locked.
            if time.time() - directory.stat().st_ctime > _FRESH_S and (fd := _lock(directory)) >= 0:
                shutil.rmtree(directory)
                os.close(fd)


def _write_job(target: Path, script: str, payload: Mapping[str, Path], limit_s: int, keep: bool) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        job = Path(scratch) / "job"
        job.write_text(f"#!/bin/sh\n{script}\n")
        job.chmod(0o755)
        limit = Path(scratch) / "limit_s"
        limit.write_text(f"{limit_s}\n")
        with tarfile.open(target, "w") as archive:
            archive.add(job, "job")
            archive.add(limit, "limit_s")
            if keep:
                archive.add(limit, "keep")
            for name, path in payload.items():
                archive.add(path, name, filter=_as_root)


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _run_qemu(line: list[str], console: Path, timeout_s: float, follow: bool) -> None:
    with console.open("wb") as file:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
        follower = subprocess.Popen(["tail", "-f", f"--pid={process.pid}", str(console)]) if follow else None
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise LabError(f"no end after {timeout_s:.0f} s\n{_tail(console)}") from None
        finally:
            process.kill()
            process.wait()
            if follower is not None:
                follower.wait()
    if process.returncode != 0:
        raise LabError(f"{shlex.join(line)} ended with {process.returncode}\n{_tail(console)}")


def _tail(console: Path) -> str:
    return "\n".join(console.read_text(errors="replace").splitlines()[-60:])


def _result(base: Path, console: str) -> Result:
    files = base / "out"
    files.mkdir()
    line = ["tar", "-xf", str(base / "result.tar"), "-C", str(files), "--no-same-owner"]
    try:
        subprocess.run(line, capture_output=True, check=True)
        status = int((files / "status").read_text())
    except (subprocess.CalledProcessError, OSError, ValueError) as error:
        tail = "\n".join(console.splitlines()[-60:])
        raise LabError(f"the machine sent nothing back ({error})\n{tail}") from None
    return Result(status, (files / "output").read_text(errors="replace"), console, files)
