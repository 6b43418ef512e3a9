"""A machine with Podman: containers run, checkpointed and restored as a user would, by the `podman` command.

Podman works in its usual places, which are the machine's own, and finds as `criu` the engine under test. What this
machine cannot give (raised limits, systemd) is set in containers.conf, so that the commands are those of any manual.
"""

import ctypes
import json
import os
import resource
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.events import time_limit_s
from harness.machine import Machine, MachineError
from harness.network import listens_at

_N_LOG_LINES = 40
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def configure(machine: Machine, image_stores: Sequence[Path], *, runtime: str = "runc") -> None:
    """Write Podman's configuration; the machine's Podman reads the image stores as well as its own."""
    etc = machine.path("/etc/containers")
    etc.mkdir(exist_ok=True)
    lines = "\n".join(f'  "{store}",' for store in image_stores)
    (etc / "storage.conf").write_text(
        '[storage]\ndriver = "overlay"\nrunroot = "/run/containers/storage"\n'
        'graphroot = "/var/lib/containers/storage"\n'
        f"[storage.options]\nadditionalimagestores = [\n{lines}\n]\n"
    )
    (etc / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}\n')
    (etc / "registries.conf").write_text("unqualified-search-registries = []\n")
    limits = ", ".join(f'"{name}={number}:{number}"' for name, number in _limits().items())
    (etc / "containers.conf").write_text(
        f'[containers]\ndefault_ulimits = [{limits}]\nlog_driver = "k8s-file"\n'
        f'[engine]\nruntime = "{runtime}"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        '[network]\nnetwork_backend = "netavark"\n'
    )


def _limits() -> dict[str, int]:
    """What Podman may ask for: its own wish, as far as it may be granted without CAP_SYS_RESOURCE."""
    wish = {"nofile": (resource.RLIMIT_NOFILE, 1048576), "nproc": (resource.RLIMIT_NPROC, 32768)}
    found = {}
    for name, (number, wanted) in wish.items():
        hard = resource.getrlimit(number)[1]
        found[name] = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    return found


class Podman:
    """The Podman of one machine.  A context manager: its containers and its machine are gone afterwards."""

    def __init__(self, image_stores: Sequence[Path], name: str = "host1", *, runtime: str = "runc") -> None:
        self.machine = Machine(name)
        configure(self.machine, image_stores, runtime=runtime)

    def __call__(self, *words: str, timeout_s: float = 120) -> str:
        """Run `podman` and return what it prints.  Raises MachineError, with the engine's logs in its notes."""
        try:
            return self.machine.out("podman", *words, timeout_s=timeout_s)
        except MachineError as error:
            for note in self.engine_logs():
                error.add_note(note)
            raise

    def fails(self, *words: str) -> str:
        """What `podman` prints when it fails, as it must."""
        done = self.machine.run("podman", *words, check=False, merge=True)
        assert done.returncode != 0, f"podman {' '.join(words)} did not fail: {done.stdout}"
        return done.stdout

    def engine_logs(self) -> list[str]:
        """The ends of all dump.log and restore.log of the containers there are."""
        found = []
        for path in sorted(
            self.machine.path("/var/lib/containers/storage/overlay-containers").glob("*/userdata/*.log")
        ):
            if path.name in ("dump.log", "restore.log"):
                tail = path.read_text(errors="replace").splitlines()[-_N_LOG_LINES:]
                found.append(f"---- {path.parent.parent.name[:12]} {path.name}\n" + "\n".join(tail))
        return found

    def run(self, *words: str) -> str:
        """`podman run -d`; the container's id."""
        return self("run", "-d", *words)

    def inspect(self, container: str, template: str) -> str:
        """`podman inspect` with a template of Go's."""
        return self("container", "inspect", "--format", template, container)

    def address(self, container: str) -> str:
        """The container's address on the default network."""
        return self.inspect(container, "{{.NetworkSettings.IPAddress}}")

    def is_running(self, container: str) -> bool:
        return self.inspect(container, "{{.State.Running}}") == "true"

    def pid(self, container: str) -> int:
        """The first process's pid, as the machine sees it."""
        return int(self.inspect(container, "{{.State.Pid}}"))

    def exec(self, container: str, *words: str) -> str:
        """What a command in the container prints."""
        return self("exec", container, *words)

    def status(self, container: str) -> list[dict[str, object]]:
        """What `podman ps -a` knows of the container."""
        found: list[dict[str, object]] = json.loads(self("ps", "-a", "--format", "json", "--filter", f"id={container}"))
        return found

    def connect(self, address: str, port: int, timeout_s: float = 30) -> socket.socket:
        """A TCP connection from the machine; the socket stays in its network wherever it is used."""
        with in_network(self.machine.pid):
            connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.settimeout(time_limit_s(timeout_s))
        try:
            connection.connect((address, port))
        except BaseException:
            connection.close()
            raise
        return connection

    def ask(self, address: str, port: int = 8080, question: str = "") -> str:
        """What a server says until it hangs up."""
        with self.connect(address, port) as connection:
            connection.sendall(question.encode())
            answer = b""
            while part := connection.recv(65536):
                answer += part
        return answer.decode(errors="replace")

    def get(self, address: str, path: str = "/", port: int = 8080) -> str:
        """The body of an HTTP answer, which must be a good one."""
        answer = self.ask(address, port, f"GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")
        head, _, body = answer.partition("\r\n\r\n")
        assert " 200" in head.partition("\n")[0], f"GET {path}: {answer}"
        return body.strip()

    def wait_for(self, is_true: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
        """Ask until it is so: what is asked are programs in other namespaces, which offer nothing to wait on."""
        deadline = time.monotonic() + time_limit_s(timeout_s)
        pause = 0.01
        while not is_true():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {timeout_s} s\n" + "\n".join(self.engine_logs()))
            time.sleep(pause)
            pause = min(pause * 1.5, 0.2)

    def wait_listening(self, container: str, port: int = 8080) -> None:
        """Until something in the container listens on the port, without connecting to it."""

        def listens() -> bool:
            with suppress(FileNotFoundError):
                return listens_at(Path(f"/proc/{self.machine.pid}/root/proc/{self.pid(container)}/net"), port)
            return False

        self.wait_for(listens, f"{container} to listen on {port}")

    def close(self) -> None:
        """Remove all containers, then the machine, whatever state it is in."""
        with suppress(MachineError):
            self.machine.run("podman", "rm", "--all", "--force", "--time=0", timeout_s=60)
        self.machine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class in_network:
    """The block's sockets are made in the network namespace of a process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ours = -1

    def __enter__(self) -> None:
        self._ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        theirs = os.open(f"/proc/{self._pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._enter(theirs)
        finally:
            os.close(theirs)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._enter(self._ours)
        os.close(self._ours)

    @staticmethod
    def _enter(descriptor: int) -> None:
        if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"setns: {os.strerror(number)}")
