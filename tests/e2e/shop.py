"""A pod of two containers, of which one asks the other over localhost for as long as both live: who misses an answer,
or gets one twice, ends.  They share a file in /dev/shm as well, which one of them writes to by a mapping.
"""

from harness import images
from harness.podman import Podman

NAME, MEMBERS = "shop", ("db", "web")
_DB = """
import mmap, os, socket
server = socket.create_server(("127.0.0.1", 7000))
with open("/dev/shm/count", "wb") as file:
    file.write(bytes(4096))
with open("/dev/shm/count", "r+b") as file:
    shared = mmap.mmap(file.fileno(), 4096)
connection, _ = server.accept()
count = 0
while connection.recv(1):
    if int.from_bytes(shared[:8], "little") != count:
        os._exit(3)
    count += 1
    shared[:8] = count.to_bytes(8, "little")
    connection.sendall(b"%d\\n" % count)
"""
_WEB = """
import mmap, os, socket, time
connection = socket.create_connection(("127.0.0.1", 7000))
answers, number = connection.makefile("rb"), 0
with open("/dev/shm/count", "rb") as file:
    shared = mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ)
while True:
    connection.sendall(b"x")
    number += 1
    if int(answers.readline()) != number or int.from_bytes(shared[:8], "little") != number:
        os._exit(3)
    time.sleep(0.001)
    if number % 20 == 0:
        with open("/run/n.new", "w") as file:
            file.write(str(number))
        os.rename("/run/n.new", "/run/n")
"""


def start(podman: Podman, *options: str) -> None:
    """Make it, with further *options* of podman pod create; both are at it when this returns."""
    podman("pod", "create", "--name", NAME, "--hostname", "till", "--label", "kind=shop", *options)
    podman.run("--name", "db", "--pod", NAME, images.APPLICATIONS, "python3", "-c", _DB)
    listens = "import sys; sys.exit(':1B58 ' not in open('/proc/net/tcp').read())"
    podman.wait_for(
        lambda: podman.machine.run("podman", "exec", "db", "python3", "-c", listens, check=False).returncode == 0,
        "one listens",
    )
    podman.run("--name", "web", "--pod", NAME, images.APPLICATIONS, "python3", "-c", _WEB)
    goes_on(podman)


def goes_on(podman: Podman) -> None:
    """Both live, and have been asked and have answered since we were called."""
    before = asked(podman)
    podman.wait_for(lambda: asked(podman) > before, "it goes on")
    assert all(podman.is_running(name) for name in MEMBERS)


def asked(podman: Podman) -> int:
    """How often."""
    return int(podman.exec("web", "sh", "-c", "cat /run/n || echo 0"))


def running(podman: Podman) -> list[str]:
    """Containers that run there, but for the first ones of pods."""
    names = podman("ps", "--format", "{{.Names}}").split()
    return sorted(name for name in names if not name.endswith("-infra"))


def address(podman: Podman) -> str:
    """Of the pod."""
    infra = podman("pod", "inspect", "--format", "{{.InfraContainerID}}", NAME)
    return podman.address(infra)
