"""Containers under runc alone: a bundle with busybox in it, and the engine under test as `criu`.

No images and no network of an engine's: what is tested is what the runtime and `criu` say to each other.
"""

import array
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness import engine
from harness.events import ProcessWatch, RenameWatch, time_limit_s, wait_renamed
from harness.processes import MARK_VARIABLE, new_mark, reap_adopted
from harness.skips import missing

_APPLETS = ("sh", "cat", "echo", "sleep", "stty", "tty", "readlink", "ls", "dd", "true")
#: Counts in memory; each number takes the last one's place as what a link in the container says, for who is outside.
#: No file is open for it: one that is and is renamed a moment later is not there when a checkpoint is restored again.
COUNTER = "i=0; while :; do ln -sf $i /tmp/n.$i; mv -f /tmp/n.$i /tmp/n; i=$((i+1)); sleep 0.02; done"


def read_count(rootfs: Path) -> int:
    """How far `COUNTER` has come in a container with that root; -1 before it has begun."""
    with suppress(FileNotFoundError):
        return int(os.readlink(rootfs / "tmp/n"))
    return -1


class RuncError(Exception):
    """runc failed; the text holds what it printed and the ends of the engine's logs."""


def _need(command: str, package: str) -> str:
    found = shutil.which(command, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        missing(f"the command {command} (Debian: {package})")
    return str(found)


class Container:
    """One container, not started yet.  A context manager that leaves nothing behind."""

    def __init__(self, command: Sequence[str], *, terminal: bool = False) -> None:
        self._runc = _need("runc", "runc")
        busybox = _need("busybox", "busybox-static")
        self.base = Path(tempfile.mkdtemp(prefix="torpor-runc-"))
        self.name = self.base.name
        self.bundle, self.images = self.base / "bundle", self.base / "images"
        self.rootfs = self.bundle / "rootfs"
        for directory in ("bin", "tmp", "proc", "sys", "dev", "etc"):
            (self.rootfs / directory).mkdir(parents=True)
        shutil.copy(busybox, self.rootfs / "bin/busybox")
        for applet in (*_APPLETS, "ln", "mv"):
            (self.rootfs / "bin" / applet).symlink_to("busybox")
        self._environment = self._prepare_environment()
        subprocess.run([self._runc, "spec"], cwd=self.bundle, check=True)
        self.config: dict[str, Any] = json.loads((self.bundle / "config.json").read_text())
        process = self.config["process"]
        process["args"], process["terminal"] = list(command), terminal
        process.pop("rlimits", None)
        self.config["root"]["readonly"] = False
        self._console = socket.socket(socket.AF_UNIX) if terminal else None
        if self._console is not None:
            self._console.bind(str(self.base / "console"))
            self._console.listen(1)

    def _prepare_environment(self) -> dict[str, str]:
        programs = self.base / "programs"
        programs.mkdir()
        words = " ".join(f"'{word}'" for word in engine.command())
        (programs / "criu").write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (programs / "criu").chmod(0o755)
        path = f"{programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        mine = {"PATH": path, "HOME": "/root", "LC_ALL": "C", MARK_VARIABLE: new_mark()}
        return mine | {"PYTHONPATH": os.environ.get("PYTHONPATH", ":".join(sys.path))}

    # -- runc's commands --------------------------------------------------------------------------------------

    def runc(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """`runc --root … WORDS`."""
        # To a file: what is restored may inherit a pipe, which then never comes to its end.
        with tempfile.TemporaryFile("w+") as output:
            line = [self._runc, "--root", str(self.base / "state"), *words]
            done = subprocess.run(
                line, env=self._environment, cwd=self.bundle, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, text=True, check=False, timeout=time_limit_s(60),
            )  # fmt: skip
            output.seek(0)
            done.stdout = output.read()
        if check and done.returncode:
            raise RuncError(f"runc {' '.join(words)} ended with {done.returncode}\n{done.stdout}\n{self.logs()}")
        return done

    def start_command(self, *words: str, pass_fds: Sequence[int] = ()) -> "subprocess.Popen[bytes]":
        """The same, not waited for."""
        line = [self._runc, "--root", str(self.base / "state"), *words]
        null = subprocess.DEVNULL
        return subprocess.Popen(
            line, env=self._environment, cwd=self.bundle, stdin=null, stdout=null, stderr=null, pass_fds=pass_fds
        )

    def run(self, stdout: int | None = None) -> None:
        """Start it; its standard streams are nothing, a descriptor of ours, or a terminal: `console` has the master."""
        (self.bundle / "config.json").write_text(json.dumps(self.config))
        words = ["run", "--detach", *self._console_words(), self.name]
        if stdout is None:
            self.runc(*words)
            return
        line = [self._runc, "--root", str(self.base / "state"), *words]
        subprocess.run(
            line, env=self._environment, cwd=self.bundle, stdin=subprocess.DEVNULL, stdout=stdout,
            stderr=subprocess.DEVNULL, check=True,
        )  # fmt: skip

    def checkpoint(self, *options: str) -> None:
        """Into `images`."""
        shutil.rmtree(self.images, ignore_errors=True)
        self.runc("checkpoint", "--image-path", str(self.images), "--work-path", str(self.base), *options, self.name)

    def restore_words(self) -> list[str]:
        """What runc is told to restore from `images`."""
        places = ["--image-path", str(self.images), "--work-path", str(self.base), "--bundle", str(self.bundle)]
        return ["restore", "--detach", *places, *self._console_words()]

    def restore(self, *options: str) -> None:
        """From `images`."""
        self.runc(*self.restore_words(), *options, self.name)

    def _console_words(self) -> list[str]:
        return ["--console-socket", str(self.base / "console")] if self._console is not None else []

    def console(self) -> int:
        """The master that runc has sent: the caller's to close."""
        assert self._console is not None
        self._console.settimeout(time_limit_s(30))
        connection, _ = self._console.accept()
        with connection:
            fds = array.array("i")
            _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_LEN(4))
            fds.frombytes(ancillary[0][2][:4])
        return fds[0]

    # -- looking at it ----------------------------------------------------------------------------------------

    def status(self) -> str:
        """`running`, `stopped`, ...; "" where runc knows no such container."""
        done = self.runc("state", self.name, check=False)
        return "" if done.returncode else str(json.loads(done.stdout)["status"])

    @property
    def pid(self) -> int:
        """The first process's pid, as we see it."""
        return int(json.loads(self.runc("state", self.name).stdout)["pid"])

    def count(self) -> int:
        """How far `COUNTER` has come; -1 before it has begun."""
        return read_count(self.rootfs)

    def wait_counting(self, beyond: int = -1) -> int:
        """Wait until `COUNTER` has gone on from where it is, and beyond a number; the number.

        RuncError if the container ends or takes too long.
        """
        watch, process = RenameWatch(self.rootfs / "tmp"), ProcessWatch(self.pid)
        try:
            last = max(self.count(), beyond)
            if not wait_renamed(watch, process, lambda: self.count() > last, time_limit_s(30)):
                raise RuncError(f"the container does not count on from {last}\n{self.logs()}")
        finally:
            watch.close()
            process.close()
        return self.count()

    def exec(self, *words: str) -> str:
        """What a command in the container prints."""
        return self.runc("exec", self.name, *words).stdout.strip()

    def logs(self) -> str:
        """The ends of dump.log and restore.log."""
        parts = []
        for name in ("dump.log", "restore.log"):
            path = self.base / name
            if path.exists():
                parts.append(f"---- {name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-30:]))
        return "\n".join(parts)

    def close(self) -> None:
        """Kill it, and remove everything."""
        with suppress(RuncError, subprocess.SubprocessError):
            self.runc("delete", "--force", self.name, check=False)
        if self._console is not None:
            self._console.close()
        reap_adopted()
        shutil.rmtree(self.base, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
