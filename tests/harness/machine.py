"""A machine for one test: namespaces with a pid 1, file systems and a network of their own, on this kernel.

To what runs in there it is a host: /etc, /run, /tmp, /var/tmp, /dev/shm and /var/lib/containers are its own, so that
Podman and sshd work in their usual places without an option, and nothing of the real host's is touched.  Killing its
pid 1 ends all of its processes, and its mounts, interfaces and firewall rules with them.  Only cgroups are the host's:
`close` removes those of containers that the machine's Podman has named.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from harness import engine
from harness.events import ProcessWatch, time_limit_s
from harness.processes import MARK_VARIABLE, new_mark, reap_adopted
from harness.skips import missing

_SOURCES = Path(__file__).parent.parent.parent / "src"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class MachineError(Exception):
    """A command in a machine failed; the text holds what it printed."""

    def __init__(self, line: Sequence[str], returncode: int | None, output: str, error: str) -> None:
        how = "ran out of time" if returncode is None else f"ended with {returncode}"
        super().__init__(f"{' '.join(line)} {how}\n{output}{error}")
        self.returncode = returncode
        self.error = error


def need_commands(commands: Mapping[str, str]) -> None:
    """Skip (in CI fail) unless all of *commands* (name and Debian's package) are there."""
    for command, package in commands.items():
        if shutil.which(command, path=_PATH) is None:
            missing(f"the command {command} (Debian: {package})")


class Machine:
    """One machine.  A context manager that leaves nothing behind."""

    def __init__(self, name: str = "host1", *, directory: Path | None = None) -> None:
        """*directory*: where its files go; a temporary directory otherwise."""
        need_commands({"unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2"})
        self.name = name
        self.base = Path(tempfile.mkdtemp(prefix="torpor-machine-", dir=directory))
        self.base.chmod(0o755)
        self.environment = {"PATH": _PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", "TERM": "xterm"}
        self._marked = {**self.environment, MARK_VARIABLE: new_mark()}
        try:
            self._prepare()
            self._init = self._start()
            self.pid = self._find_init()
        except BaseException:
            shutil.rmtree(self.base, ignore_errors=True)
            raise

    def _prepare(self) -> None:
        """The files that are there before anything is mounted."""
        sbin = self.base / "upper/usr/local/sbin"
        sbin.mkdir(parents=True)
        words = " ".join(f"'{word}'" for word in engine.command())
        wrapper = sbin / "criu"
        wrapper.write_text(
            f"#!/bin/sh\nexport PYTHONPATH='{os.environ.get('PYTHONPATH', str(_SOURCES))}'\nexec {words} \"$@\"\n"
        )
        wrapper.chmod(0o755)
        etc = self.base / "upper/etc"
        etc.mkdir(parents=True)
        (etc / "hosts").write_text(f"127.0.0.1 localhost {self.name}\n")

    def _visible(self) -> list[str]:
        paths = [sys.prefix, sys.base_prefix, str(_SOURCES.parent), *engine.command()[:1]]
        cache = os.environ.get("TORPOR_TEST_CACHE")
        paths += [str(Path(path).parent) for path in engine.command() if path.startswith("/")]
        return list(dict.fromkeys(path for path in [*paths, *([cache] if cache else [])] if Path(path).is_dir()))

    def _start(self) -> "subprocess.Popen[str]":
        specification = {"name": self.name, "base": str(self.base), "visible": self._visible()}
        line = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
        line += [sys.executable, "-m", "harness.machine_init", json.dumps(specification)]
        tests = str(Path(__file__).parent.parent)
        return subprocess.Popen(
            line,
            env={**self._marked, "PYTHONPATH": tests},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            start_new_session=True,
        )

    def _find_init(self) -> int:
        assert self._init.stdout is not None
        if self._init.stdout.readline() != "ready\n":
            _, error = self._init.communicate(timeout=time_limit_s(10))
            if "Operation not permitted" in error:
                missing(f"leave to make a machine of namespaces ({error.strip().splitlines()[-1]})")
            raise MachineError(["unshare"], self._init.returncode, "", error)
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text().split()
        return int(children[0])

    def enter(self, line: Sequence[str], *, directory: str = "/") -> list[str]:
        """The command line that runs *line* in the machine, from here."""
        entry = ["nsenter", "-t", str(self.pid), "-n", "-m", "-p", "-u", "-i", "--"]
        return [*entry, "env", "-i", "-C", directory, *(f"{key}={value}" for key, value in self._marked.items()), *line]

    def run(
        self,
        *line: str,
        check: bool = True,
        stdin: str | None = None,
        timeout_s: float = 120,
        merge: bool = False,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end.  Raises MachineError if it fails and *check* is set, or takes too long.

        Output goes to files and not to pipes: what a command leaves running in the background may inherit it.
        """
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as error:
            try:
                process = subprocess.run(
                    self.enter(line),
                    input=stdin,
                    stdin=subprocess.DEVNULL if stdin is None else None,
                    stdout=output,
                    stderr=output if merge else error,
                    text=True,
                    errors="replace",
                    timeout=time_limit_s(timeout_s),
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise MachineError(line, None, _all(output), _all(error)) from None
            said, complained = _all(output), _all(error)
        if check and process.returncode != 0:
            raise MachineError(line, process.returncode, said, complained)
        return subprocess.CompletedProcess(list(line), process.returncode, said, complained)

    def out(self, *line: str, timeout_s: float = 120) -> str:
        """What a command prints, without the white space around it."""
        return self.run(*line, timeout_s=timeout_s).stdout.strip()

    def spawn(self, *line: str, log: Path | None = None) -> "subprocess.Popen[bytes]":
        """Start a command; whoever starts it waits for it, or closes the machine."""
        with (log or Path(os.devnull)).open("ab") as sink:
            return subprocess.Popen(self.enter(line), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)

    def path(self, inside: str) -> Path:
        """Where a file of the machine's is seen from here."""
        return Path(f"/proc/{self.pid}/root") / inside.lstrip("/")

    def join(self, other: "Machine", network: str = "192.0.2") -> None:
        """Lay a cable to another machine: we are .1, it is .2, and both know the other's name."""
        # `ip` of the host's pid namespace, which knows both machines' pid 1 by number.
        ends = ((self, f"to-{other.name}"[:15], 1), (other, f"to-{self.name}"[:15], 2))
        peer = ["peer", "name", ends[1][1], "netns", str(other.pid)]
        _in_network(self.pid, "ip", "link", "add", ends[0][1], "type", "veth", *peer)
        for machine, device, number in ends:
            _in_network(machine.pid, "ip", "address", "add", f"{network}.{number}/30", "dev", device)
            _in_network(machine.pid, "ip", "link", "set", device, "up")
            with machine.path("/etc/hosts").open("a") as hosts:
                hosts.write(f"{network}.1 {self.name}\n{network}.2 {other.name}\n")

    def close(self) -> None:
        """End all of the machine's processes, and remove its files."""
        containers = self._containers()
        with ExitStack() as stack:
            with suppress(ProcessLookupError):
                stack.callback(_see_it_end, stack.enter_context(ProcessWatch(self.pid)))
            self._init.send_signal(signal.SIGKILL)
            self._init.wait()
        for pipe in (self._init.stdin, self._init.stdout, self._init.stderr):
            if pipe is not None:
                pipe.close()
        _remove_cgroups(containers)
        if os.environ.get("TORPOR_KEEP"):
            print(f"kept: {self.base}")
        else:
            shutil.rmtree(self.base)

    def _containers(self) -> set[str]:
        """The ids of all containers and pods that there have been."""
        found = set()
        with suppress(OSError):
            for line in self.path("/run/libpod/events/events.log").read_text().splitlines():
                with suppress(ValueError, KeyError):
                    found.add(json.loads(line)["ID"])
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _see_it_end(init: ProcessWatch) -> None:
    """Until then there are processes that may write to its files.

    A first process ends when all others of its pid namespace have been waited for: by us, of those who have lost the
    parent by whom they had entered it.
    """
    deadline = time.monotonic() + time_limit_s(10)
    while not init.wait_ended(0.05) and time.monotonic() < deadline:
        reap_adopted()


def _all(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def _in_network(pid: int, *line: str) -> None:
    subprocess.run(["nsenter", "-t", str(pid), "-n", *line], check=True, stdin=subprocess.DEVNULL, timeout=60)


def _remove_cgroups(containers: Iterable[str]) -> None:
    """Remove the (empty) cgroups of containers and pods, in whatever hierarchies there are."""
    for container in containers:
        names = (f"libpod-{container}*", container)
        for pattern in (f"{parent}/{name}" for parent in ("*/libpod_parent", "libpod_parent") for name in names):
            for top in Path("/sys/fs/cgroup").glob(pattern):
                for directory, _, _ in os.walk(top, topdown=False):
                    with suppress(OSError):
                        Path(directory).rmdir()
