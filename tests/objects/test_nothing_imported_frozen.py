"""Nothing is imported from the moment a tree is stopped: what a dump needs then, the checks before it have loaded."""

import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness import cgroups, engine
from harness.events import time_limit_s
from harness.flavours import Flavour, start
from harness.neighbour import joined_namespace
from harness.runc import COUNTER, Container
from harness.streams import InNamespace

pytestmark = pytest.mark.root

#: What is imported all the same: the module, and why.
EXCEPTIONS: dict[str, str] = {
    "torpor.tracee.vigil": "whether a process is stopped is known when it has been seized",
    "torpor.objects.files.mqueue": "a message queue is told from a file by its descriptor only",
    "torpor.objects.files.mqueue_data": "the same",
    "torpor.objects.files.mqueue_notify": "the same",
}

#: The engine, which writes down each module that is imported from the first stop on, with the phase.  Not of what it
#: forks.
PROGRAM = """
import os, sys
from torpor.base.records import replace
from torpor.cli.criu.main import main
from torpor.engine.dump import run, stopping
from torpor.engine.dump.phases import FROZEN

notes = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
current, watched = "", 0

def wrapped(phase):
    def go(session):
        global current
        current = phase.name if phase.stage == FROZEN else ""
        phase.run(session)
        current = ""
    return replace(phase, run=go)

def stop(session, stop=stopping._stop):
    global current, watched
    current, watched = "stop", os.getpid()
    return stop(session)

def told(event, words):
    if event == "import" and current and os.getpid() == watched:
        os.write(notes, f"{current}: {words[0]}\\n".encode())

stopping._stop = stop
run.DUMP = tuple(map(wrapped, run.DUMP))
run.PRE_DUMP = tuple(map(wrapped, run.PRE_DUMP))
sys.addaudithook(told)
sys.exit(main(sys.argv[2:]))
"""
#: What those that are not told otherwise are dumped with.
_OPTIONS = ("--file-locks", "--link-remap", "--shell-job")

#: A server that keeps each connection, or answers with more than a client takes unread and closes it ("a"); after a
#: "d" it accepts nobody any more.
_SERVER = """
import signal, socket, sys
listener = socket.create_server((sys.argv[1], 0), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print("port", listener.getsockname()[1], flush=True)
unix = socket.socket(socket.AF_UNIX)
unix.bind("\\0" + sys.argv[2])
unix.listen()
near = socket.socket(socket.AF_UNIX)
near.connect(unix.getsockname())
kept, word = [], b""
while word != b"d":
    peer, _ = listener.accept()
    kept.append(peer)
    word = peer.recv(1)
    if word == b"a":
        kept.pop()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_000_000)
        peer.sendall(bytes(1_500_000))
        peer.close()
    print("served", flush=True)
    del peer
signal.pause()
"""


class Watched:
    """An engine that is watched.  A context manager within which dumps are made by it."""

    def __init__(self, base: Path) -> None:
        self._program, self._notes = base / "program", base / "imported"
        self._program.write_text(PROGRAM)
        self._stack = ExitStack()

    def __enter__(self) -> None:
        self._stack.enter_context(engine.using([sys.executable, str(self._program), str(self._notes)]))

    def __exit__(self, kind: object, *_: object) -> None:
        self._stack.close()
        if kind is None:
            found = dict.fromkeys(self._notes.read_text().split("\n"))  # which is there if it was used
            assert not [each for each in found if each and each.partition(": ")[2] not in EXCEPTIONS]


def look(
    name: str, directory: Path, *options: str, flavour: Flavour = Flavour.HOST, prefix: Sequence[str] = ()
) -> None:
    """Dump a workload that is watched."""
    (images := directory / "images").mkdir()
    with start(flavour, name, prefix=prefix) as workload:
        workload.wait_ready()
        with Watched(directory):
            tcp = () if "--tcp-close" in options else ("--tcp-established",)
            engine.dump(workload.pid, images, options=[*_OPTIONS, *tcp, *options])


@pytest.mark.parametrize("options", [(), ("-R",), ("-s",)], ids=["killed", "running", "stopped"])
@pytest.mark.parametrize("name", ["family", "tcp_pair"])
def test_whatever_becomes_of_the_tree(name: str, options: tuple[str, ...], tmp_path: Path) -> None:
    look(name, tmp_path, *options)


@pytest.mark.parametrize(
    "name",
    [
        "churn", "epoll", "eventfd", "file_locks", "ghost_files", "in_vfork", "inotify", "memfd", "mqueue",
        "pipe_contents", "posix_timers", "pty", "seccomp_filters", "shared_anonymous", "stopped", "tcp_listen",
        "threads", "udp", "unix_names", "unix_pairs", "vdso", "waiting", "zombies",
    ],
)  # fmt: skip
def test_whatever_it_has(name: str, tmp_path: Path) -> None:
    look(name, tmp_path)


@pytest.mark.parametrize("name", ["family", "shared_anonymous", "tcp_pair"])
def test_while_its_memory_is_copied(name: str, tmp_path: Path) -> None:
    (images := tmp_path / "images").mkdir()
    with start(Flavour.HOST, name) as workload:
        workload.wait_ready()
        with Watched(tmp_path):
            words = f"pre-dump -t {workload.pid} --shell-job --tcp-established -D".split()
            subprocess.run([*engine.command(), *words, str(images)], check=True)


@pytest.mark.parametrize("options", [(), ("-R", "--network-lock", "nftables"), ("--tcp-close",)], ids=" ".join)
@pytest.mark.parametrize("name", ["family", "tcp_listen", "tcp_pair"])
@pytest.mark.parametrize("flavour", [Flavour.JOB, Flavour.FRESH, Flavour.USER])
def test_in_namespaces_of_its_own(flavour: Flavour, name: str, options: tuple[str, ...], tmp_path: Path) -> None:
    look(name, tmp_path, *options, flavour=flavour)


@pytest.mark.parametrize("hierarchy", ["freezer", ""], ids=["v1", "v2"])
def test_by_a_freezer(hierarchy: str, tmp_path: Path) -> None:
    with cgroups.group(hierarchy) as path:
        look("threads", tmp_path, "--freeze-cgroup", str(path), "--manage-cgroups", prefix=cgroups.entering(path))


@pytest.mark.usefixtures("own_network")
@pytest.mark.parametrize("ends", ["", "a", "hkkh", "ad"], ids=["idle", "goodbye", "half", "waited for"])
@pytest.mark.parametrize("lock", ["nftables", "iptables"])
@pytest.mark.parametrize("option", ["--tcp-established", "--tcp-close"])
def test_a_server_in_a_network_of_its_own(option: str, lock: str, ends: str, tmp_path: Path) -> None:
    """Connections established, shut down by the client (h), closed by the server (a); with clients not accepted (d)."""
    with joined_namespace() as keeper, InNamespace(keeper) as program, ExitStack() as clients:
        command = ["nsenter", "-n", "-t", str(keeper), sys.executable, "-c", _SERVER, "10.213.7.2", program.mark]
        program.start(command)
        program.wait_log(r"port \d+\n")

        def come() -> socket.socket:
            return clients.enter_context(socket.create_connection(("10.213.7.2", program.port), time_limit_s(20)))

        for n, word in enumerate(ends):
            client = come()
            client.sendall(word.encode())
            if word == "h":
                client.shutdown(socket.SHUT_WR)
            program.wait_log("served\n", count=n + 1)
        if ends.endswith("d"):
            come()
        script = tmp_path / "hook"
        script.write_text("#!/bin/sh\n")
        script.chmod(0o755)
        others = ("--network-lock", lock, "--skip-in-flight", "--action-script", str(script))
        program.dump_options = (option, *program.dump_options[1:], *others)
        with Watched(tmp_path):
            program.checkpoint()


def test_a_container(tmp_path: Path) -> None:
    with Watched(tmp_path), Container(["sh", "-c", COUNTER]) as container:
        container.run()
        container.wait_counting()
        container.checkpoint("--tcp-established", "--file-locks")
