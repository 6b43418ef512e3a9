"""Another host, as far as a migration of a job is concerned: a pid namespace and a state directory of its own.

It is reached by a command in the place of ssh.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.events import ProcessWatch, time_limit_s
from harness.processes import reap_adopted

#: Addresses of the caller and of a host, where there is a cable between them.
HERE, THERE = "192.0.2.1", "192.0.2.2"
_PORT, _RSH = 22, Path(__file__).parent / "rsh.py"
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
    """``pid`` is that of its pid 1, as we see it; ``rsh`` the command that leads there, whatever host it is given.

    ``inside`` leads there as well, whatever becomes of the network.
    """

    pid: int
    state: Path
    rsh: Path
    torpor: Path
    inside: Path

    @property
    def words(self) -> list[str]:
        """The options of ``torpor migrate`` that lead there."""
        return ["--rsh", str(self.rsh), "--remote-torpor", str(self.torpor)]

    def run(self, *words: str) -> str:
        """What ``torpor`` with these words prints there."""
        line = [str(self.inside), self.state.name, f"{self.torpor} {' '.join(words)}"]
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
                found += [f"{place}/{name}" for name in os.listdir(self.state / place) if name != ".spare"]
        return sorted(found)


@contextmanager
def host(
    base: Path, name: str, environment: Mapping[str, str] | None = None, *, main: str = "", network: bool = False
) -> Iterator[Host]:
    """Such a host, which lies below *base*, and all of which ends with the block.

    *main*: Python that is run before ``torpor`` is.  *network*: it has one of its own, at the other end of a cable to
    that of the caller, and is reached by it.
    """
    state = base / name
    state.mkdir(exist_ok=True)
    line = ["unshare", *(["--net"] if network else []), "--pid", "--fork", "--kill-child", "--mount-proc"]
    with subprocess.Popen([*line, sys.executable, "-S", "-c", _INIT], stdin=-1, stdout=-1) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == b"ready\n"
            children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
            with ExitStack() as stack:
                stack.callback(_see_it_end, holder, stack.enter_context(ProcessWatch(int(children[0]))))
                made = _make(int(children[0]), base, state, environment or {}, main, network=network)
                if network:
                    lay_cable(made)
                    stack.enter_context(_served(made))
                yield made
        finally:
            _end(holder)


def _end(holder: "subprocess.Popen[bytes]") -> None:
    assert holder.stdin is not None
    holder.stdin.close()
    try:
        holder.wait(time_limit_s(10))
    except subprocess.TimeoutExpired:
        holder.send_signal(signal.SIGKILL)
        holder.wait()


def _see_it_end(holder: "subprocess.Popen[bytes]", init: ProcessWatch) -> None:
    """Its first process ends when all others have been waited for: by us, of those who entered it from outside."""
    _end(holder)
    deadline = time.monotonic() + time_limit_s(10)
    while not init.wait_ended(0.05) and time.monotonic() < deadline:
        reap_adopted()
    assert init.has_ended()
    reap_adopted()


def _make(pid: int, base: Path, state: Path, environment: Mapping[str, str], main: str, *, network: bool) -> Host:
    # As sshd says it: a port for data is opened where the source has come to.
    address = THERE if network else "127.0.0.1"
    variables = {"TORPOR_STATE": str(state), "SSH_CONNECTION": f"{HERE} 50000 {address} 22", **environment}
    rsh, torpor, inside = (base / f"{state.name}.{word}" for word in ("rsh", "torpor", "inside"))
    words = " ".join(f"{key}='{value}'" for key, value in variables.items())
    inside.write_text(f'#!/bin/sh\nshift\nexec nsenter -t {pid} -p -m -n env {words} sh -c "$1"\n')
    connect = f'exec {sys.executable} {_RSH} connect {THERE} {_PORT} "$1"'
    rsh.write_text(f"#!/bin/sh\nshift\n{connect}\n" if network else inside.read_text())
    program = "-m torpor.cli.torpor"
    if main:
        script = base / f"{state.name}.py"
        script.write_text(f"{main}\nimport sys\nfrom torpor.cli.torpor import main\nsys.exit(main())\n")
        program = str(script)
    torpor.write_text(f'#!/bin/sh\nexec {sys.executable} {program} "$@"\n')
    for path in (rsh, torpor, inside):
        path.chmod(0o755)
    return Host(pid, state, rsh, torpor, inside)


def lay_cable(there: Host) -> None:
    """Between the network of the caller and that of *there*, where it was, if it has been removed."""
    subprocess.run(["ip", "link", "del", "cable"], stderr=subprocess.DEVNULL, check=False)
    inside = ["nsenter", "-t", str(there.pid), "-n"]
    for line in (
        ["ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", str(there.pid)],
        ["ip", "address", "add", f"{HERE}/24", "dev", "cable"],
        ["ip", "link", "set", "cable", "up"],
        [*inside, "ip", "address", "add", f"{THERE}/24", "dev", "cable"],
        [*inside, "ip", "link", "set", "cable", "up"],
        [*inside, "ip", "link", "set", "lo", "up"],
    ):
        subprocess.run(line, check=True)


@contextmanager
def _served(there: Host) -> Iterator[None]:
    line = f"exec {sys.executable} {_RSH} serve {THERE} {_PORT}"
    with _serving([str(there.inside), there.state.name, line]) as pid:
        # Who is run by it is of its session, and those who outlive that are not.
        there.state.with_suffix(".session").write_text(f"{pid}\n")
        yield


@contextmanager
def lead_back(base: Path, state: Path) -> Iterator[None]:
    """The caller is reached from the other end of the cable, where its state is *state*: by ``base/here.rsh``."""
    rsh = base / "here.rsh"
    rsh.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} {_RSH} connect {HERE} {_PORT} "$1"\n')
    rsh.chmod(0o755)
    variables = [f"TORPOR_STATE={state}", f"SSH_CONNECTION={THERE} 50000 {HERE} {_PORT}"]
    with _serving(["env", *variables, sys.executable, str(_RSH), "serve", HERE, str(_PORT)]):
        yield


@contextmanager
def _serving(line: Sequence[str]) -> Iterator[int]:
    with subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True) as server:
        try:
            assert server.stdout is not None and server.stdout.readline() == b"ready\n"
            yield server.pid
        finally:
            server.kill()
