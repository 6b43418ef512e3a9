"""Another host, as far as a migration of a job is concerned: a pid namespace and a state directory of its own.

It is reached by a command in the place of ssh.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.events import time_limit_s

#: Pid 1 of a host: waits for those who have lost their parents, and ends when its standard input does.
_INIT = """
import os, select, signal
reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
signal.set_wakeup_fd(writer)
signal.signal(signal.SIGCHLD, lambda *_: None)
print("ready", flush=True)
while 0 not in select.select([0, reader], [], [])[0]:
    os.read(reader, 4096)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
"""


@dataclass(frozen=True)
class Host:
    """``pid`` is that of its pid 1, as we see it; ``rsh`` the command that leads there, whatever host it is given."""

    pid: int
    state: Path
    rsh: Path
    torpor: Path

    @property
    def words(self) -> list[str]:
        """The options of ``torpor migrate`` that lead there."""
        return ["--rsh", str(self.rsh), "--remote-torpor", str(self.torpor)]

    def run(self, *words: str) -> str:
        """What ``torpor`` with these words prints there."""
        line = [str(self.rsh), self.state.name, f"{self.torpor} {' '.join(words)}"]
        return subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=time_limit_s(60)
        ).stdout

    def jobs(self) -> dict[str, str]:
        """Names and states."""
        return {job["name"]: job["status"] for job in json.loads(self.run("ps", "-a", "--json"))}

    def leftovers(self) -> list[str]:
        """What lies in its state directory that belongs to no job: nothing, when nobody is at work."""
        found = []
        for place in ("locks", "unpacked", "migrating", "checkpoints"):
            if (self.state / place).is_dir():
                found += [f"{place}/{name}" for name in os.listdir(self.state / place)]
        return sorted(found)


@contextmanager
def host(base: Path, name: str, environment: Mapping[str, str] | None = None) -> Iterator[Host]:
    """Such a host, which lies below *base*, and all of which ends with the block."""
    state = base / name
    state.mkdir()
    line = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-S", "-c", _INIT]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == b"ready\n"
            children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
            yield _make(int(children[0]), base, state, environment or {})
        finally:
            assert holder.stdin is not None
            holder.stdin.close()
            try:
                holder.wait(time_limit_s(10))
            except subprocess.TimeoutExpired:
                holder.send_signal(signal.SIGKILL)


def _make(pid: int, base: Path, state: Path, environment: Mapping[str, str]) -> Host:
    # As sshd says it: a port for data is opened where the source has come to.
    variables = {"TORPOR_STATE": str(state), "SSH_CONNECTION": "127.0.0.1 50000 127.0.0.1 22", **environment}
    rsh, torpor = base / f"{state.name}.rsh", base / f"{state.name}.torpor"
    words = " ".join(f"{key}='{value}'" for key, value in variables.items())
    rsh.write_text(f'#!/bin/sh\nshift\nexec nsenter -t {pid} -p -m env {words} sh -c "$1"\n')
    torpor.write_text(f'#!/bin/sh\nexec {sys.executable} -m torpor.cli.torpor "$@"\n')
    for path in (rsh, torpor):
        path.chmod(0o755)
    return Host(pid, state, rsh, torpor)
