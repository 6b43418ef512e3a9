"""A Podman of a test's own: storage, network and mounts that nobody else has, below one directory.

Its mount namespace has an empty /usr/local/sbin and share, where `torpor setup` may put its commands for real.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.compiler import compiled
from harness.events import time_limit_s
from harness.skips import missing

IMAGE = "localhost/counter"
PORT = 8080
_CONFIGURATION = '[containers]\ndefault_ulimits = []\n[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\n'
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_INSIDE = (
    # What others have there would be hidden, and a job has copies of all mounts.
    "for each in /run/netns/*; do umount -l $each 2>/dev/null; done; "
    "mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && mount -t tmpfs tmpfs /usr/local/sbin && "
    "mount -t tmpfs tmpfs /usr/local/share && "
    "ip link set lo up && echo ready && exec cat"
)


class PrivatePodman:
    """A context manager: containers, mounts and network are gone afterwards."""

    def __init__(self, directory: Path) -> None:
        for command in ("podman", "runc", "conmon", "netavark", "unshare", "nsenter", "ip"):
            places = f"{_PATH}:/usr/lib/podman:/usr/libexec/podman"
            if shutil.which(command, path=places) is None:
                missing(f"the command {command} (Debian: podman runc conmon netavark util-linux iproute2)")
        self.directory = directory
        configuration = directory / "containers.conf"
        configuration.write_text(_CONFIGURATION)
        self._words = [
            "podman", "--root", f"{directory}/storage", "--runroot", f"{directory}/run", "--tmpdir", f"{directory}/tmp",
            "--network-config-dir", f"{directory}/networks",
        ]  # fmt: skip
        self.environment = {
            **os.environ,
            "PATH": _PATH,
            "CONTAINERS_CONF": str(configuration),
            "TORPOR_STATE": str(directory / "state"),
            "TORPOR_PODMAN": " ".join(self._words),
            "TORPOR_DOCKER": "/nowhere",
            "TORPOR_CTR": "/nowhere",
            "TORPOR_LXC_CHECKPOINT": "/nowhere",
        }
        # In this order: what is asked of /proc and /sys is the new network's.
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", _INSIDE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"

    @property
    def enter(self) -> list[str]:
        """The words before a command that is run on this host."""
        return ["nsenter", f"--target={self._holder.pid}", "--mount", "--net"]

    def run(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command on this host."""
        line = [*self.enter, *map(str, words)]
        done = subprocess.run(
            line, env=self.environment, capture_output=True, text=True, timeout=time_limit_s(180), check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{line[4:]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def podman(self, *words: str) -> str:
        """What `podman` prints."""
        return self.run(*self._words, *words).stdout.strip()

    def torpor(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `torpor`, as the tree under test has it."""
        return self.run(sys.executable, "-m", "torpor.cli.torpor", *words, check=check)

    def make_image(self) -> None:
        """An image that holds nothing but the program counter_server."""
        archive = self.directory / "image.tar"
        with tarfile.open(archive, "w") as image:
            image.add(compiled("counter_server"), "counter_server")
        self.podman("import", "--change", 'ENTRYPOINT ["/counter_server"]', str(archive), IMAGE)

    def start(self, name: str, *words: str) -> str:
        """A container of the image that answers; its id."""
        ident = self.podman("run", "-d", "--name", name, "--ulimit", "host", *words, IMAGE)
        self.ask(name)
        return ident

    def inspect(self, name: str, template: str) -> str:
        """`podman container inspect --format`."""
        return self.podman("container", "inspect", "--format", template, name)

    def ask(self, name: str, of: str = "") -> int:
        """What the program in the container answers on its address: how many have asked before.

        *of*: the container that has the address, if it is another one.
        """
        address = self.inspect(of or name, "{{.NetworkSettings.IPAddress}}")
        program = (
            "import socket, time\n"
            f"deadline = time.monotonic() + {time_limit_s(30)}\n"
            "while True:\n"
            "    try:\n"
            f"        connection = socket.create_connection(({address!r}, {PORT}), 5)\n"
            "        break\n"
            "    except ConnectionRefusedError:\n"
            "        assert time.monotonic() < deadline\n"
            "print(connection.makefile().read())\n"
        )
        return int(self.run(sys.executable, "-c", program).stdout)

    def containers(self) -> dict[str, str]:
        """All containers' names and states."""
        found = json.loads(self.podman("ps", "--all", "--format", "json") or "[]")
        return {entry["Names"][0]: entry["State"] for entry in found or []}

    def close(self) -> None:
        """Remove everything."""
        try:
            self.podman("rm", "--all", "--force", "--time=0")
            self.podman("rmi", "--all", "--force")
            self.run("sh", "-c", f"umount {self.directory}/storage/overlay 2>/dev/null || true")
        finally:
            self._holder.send_signal(signal.SIGKILL)
            self._holder.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
