"""``torpor migrate``: a container of Podman moves from one host to another by ssh, and runs on where it cannot."""

from e2e.moving import TORPOR
from e2e.slides import SECOND, let_in
from harness import images
from harness.applications import ShellLoop
from harness.podman import Podman

_LOOP = ShellLoop()


def _migrate(first: Podman, *words: str, check: bool = True) -> str:
    line = [TORPOR, "migrate", "podman:counter", SECOND, "--remote-torpor", TORPOR, *words]
    done = first.machine.run(*line, check=check, merge=True, timeout_s=180)
    assert check or done.returncode != 0
    return done.stdout


def test_a_container_moves_and_goes_on_there(hosts: tuple[Podman, Podman]) -> None:
    first, second = hosts
    container = first.run("--name", "counter", images.APPLICATIONS, *_LOOP.command)
    assert [_LOOP.step(first, container) for _ in range(3)] == [0, 1, 2]
    assert "nothing stands in the way" in _migrate(first, "--dry-run")
    assert f"counter runs on {SECOND}" in _migrate(first)
    assert first("ps", "--all", "--quiet") == ""
    assert [_LOOP.step(second, "counter") for _ in range(3)] == [3, 4, 5]


def test_what_the_other_host_cannot_take_runs_on(hosts: tuple[Podman, Podman]) -> None:
    first, second = hosts
    container = first.run("--name", "counter", images.APPLICATIONS, *_LOOP.command)
    assert _LOOP.step(first, container) == 0
    # What can be known is said before anything is stopped.
    second("create", "--name", "counter", images.APPLICATIONS, "true")
    assert "a container called counter here" in _migrate(first, check=False)
    assert _LOOP.step(first, container) == 1
    # What cannot: it is restored where it was.
    second("rm", "counter")
    second.machine.path("/usr/local/sbin/criu").unlink()
    said = _migrate(first, check=False)
    assert "podman:counter runs on here" in said, said
    assert _LOOP.step(first, container) == 2
    assert second("ps", "--all", "--quiet") == ""


def test_volumes_go_along_and_what_is_written_to_them_meanwhile(hosts: tuple[Podman, Podman]) -> None:
    first, second = hosts
    writer = (
        "import mmap, os\n"
        "for place in ('/data/file', '/dev/shm/file', '/var/file'):\n"
        "    with open(place, 'wb') as file: file.write(bytes(4096))\n"
        "places = [open(place, 'r+b') for place in ('/data/file', '/dev/shm/file', '/var/file')]\n"
        "maps = [mmap.mmap(each.fileno(), 4096) for each in places]\n"
        "number = 0\n"
        "os.remove('/etc/motd') if os.path.exists('/etc/motd') else None\n"
        "while True:\n"
        "    number += 1\n"
        "    for each in maps: each[:8] = number.to_bytes(8, 'little')\n"
        "    os.pwrite(places[0].fileno(), number.to_bytes(8, 'little'), 8)\n"
        "    for at in (maps[0][:8], maps[0][8:16], maps[1][:8], maps[2][:8]):\n"
        "        if int.from_bytes(at, 'little') != number: os._exit(3)\n"
    )
    first("volume", "create", "data")
    container = first.run("--name", "counter", "-v", "data:/data", images.APPLICATIONS, "python3", "-c", writer)
    first.wait_for(
        lambda: first.exec(container, "sh", "-c", "ls /data /dev/shm /var").count("file") == 3, "it has begun"
    )
    assert "--volumes copy" in _migrate(first, check=False)
    assert "no volume called data" in _migrate(first, "--volumes", "shared", check=False)
    _migrate(first, "--volumes", "copy", "--name", "other")
    before = _number(second, "/data/file")
    second.wait_for(lambda: _number(second, "/data/file") > before, "it goes on")
    assert before > 0 and second.is_running("other")
    assert _number(second, "/dev/shm/file") > before and _number(second, "/var/file") > before


def _number(podman: Podman, place: str) -> int:
    said = podman.exec("other", "python3", "-c", f"print(int.from_bytes(open('{place}', 'rb').read(8), 'little'))")
    return int(said)


def test_a_connection_goes_along(hosts: tuple[Podman, Podman]) -> None:
    """It is one between two programs of the container: what is under way both ways comes, and comes once."""
    first, second = hosts
    program = (
        "import os, socket, threading\n"
        "server = socket.create_server(('', 8080))\n"
        "near = socket.create_connection(('127.0.0.1', 8080)); far, _ = server.accept()\n"
        "def echo():\n"
        "    while data := far.recv(65536): far.sendall(data)\n"
        "threading.Thread(target=echo, daemon=True).start()\n"
        "def ask():\n"
        "    sent = 0\n"
        "    while True: near.sendall(sent.to_bytes(8, 'little')); sent += 1\n"
        "threading.Thread(target=ask, daemon=True).start()\n"
        "stream, wanted = near.makefile('rb'), 0\n"
        "while True:\n"
        "    if int.from_bytes(stream.read(8), 'little') != wanted: os._exit(3)\n"
        "    wanted += 1\n"
        "    if wanted % 1000 == 0: open('/run/n', 'w').write(str(wanted))\n"
    )
    container = first.run("--name", "counter", images.APPLICATIONS, "python3", "-c", program)
    first.wait_for(lambda: "n" in first.exec(container, "ls", "/run").split(), "it has begun")
    _migrate(first)
    before = int(second.exec("counter", "cat", "/run/n") or 0)
    second.wait_for(lambda: int(second.exec("counter", "cat", "/run/n") or 0) > before, "it goes on")
    assert second.is_running("counter")


_SERVER = """
import socket
server, count, last, answer = socket.create_server(("", 8080), backlog=64), 0, b"", b""
while True:
    connection, _ = server.accept()
    with connection:
        connection.settimeout(1)
        try:
            what = connection.recv(100)
            if what != last:  # who asks again gets the answer that he has missed
                last, answer, count = what, str(count).encode(), count + 1
            connection.sendall(answer)
        except OSError:
            pass
"""
_CLIENT = """
import os, socket, time
number = 0
while True:
    try:
        with socket.create_connection(("192.0.2.100", 8080), 0.1) as connection:
            connection.sendall(b"%d" % number)
            answer = connection.recv(100)
    except OSError:
        time.sleep(0.002)
        continue
    if answer:
        if answer != b"%d" % number:
            os._exit(3)
        number += 1
        with open("/run/n.new", "w") as file:
            file.write(str(number))
        os.rename("/run/n.new", "/run/n")
"""


def test_no_request_is_lost_or_answered_twice_there_and_back(hosts: tuple[Podman, Podman]) -> None:
    """The service's address moves along between two hosts on one segment; the client is on it, too."""
    first, second = hosts
    for here, there in ((first, second), (second, first)):
        parent = f"parent=to-{there.machine.name}"
        here("network", "create", "-d", "macvlan", "-o", parent, "--subnet", "192.0.2.0/24", "segment")
    let_in(second.machine, first.machine)
    key = "/etc/ssh/slides_key"  # one for both directions
    first.machine.path(key).write_text(second.machine.path(key).read_text())
    client = (
        "--name",
        "client",
        "--network",
        "segment",
        "--ip",
        "192.0.2.50",
        images.APPLICATIONS,
        "python3",
        "-c",
        _CLIENT,
    )
    first.run(
        "--name",
        "counter",
        "--network",
        "segment",
        "--ip",
        "192.0.2.100",
        images.APPLICATIONS,
        "python3",
        "-c",
        _SERVER,
    )
    second.run(*client)
    second.wait_for(lambda: _asked(second) > 20, "the client is answered")
    for here, there in ((first, second), (second, first)):
        line = [TORPOR, "migrate", "podman:counter", there.machine.name, "--remote-torpor", TORPOR]
        here.machine.run(*line, timeout_s=180)
        assert here("ps", "--all", "--quiet", "--filter", "name=counter") == ""
        before = _asked(second)
        second.wait_for(lambda before=before: _asked(second) > before + 20, "the client is answered again")  # type: ignore[misc]
        assert there.inspect("counter", "{{.NetworkSettings.Networks.segment.IPAddress}}") == "192.0.2.100"


def _asked(podman: Podman) -> int:
    assert podman.is_running("client"), "a number was lost, or came twice"
    return int(podman.exec("client", "sh", "-c", "cat /run/n || echo 0"))


def test_who_has_not_been_accepted_yet_does_not_stand_in_the_way(hosts: tuple[Podman, Podman]) -> None:
    first, second = hosts
    program = (
        "import socket\n"
        "server = socket.create_server(('', 8080))\n"
        "near = socket.create_connection(('127.0.0.1', 8080))\n"
        "open('/run/n', 'w').write('1')\n"
        "import time; time.sleep(100000)\n"
    )
    container = first.run("--rm", "--name", "counter", images.APPLICATIONS, "python3", "-c", program)
    first.wait_for(lambda: "n" in first.exec(container, "ls", "/run").split(), "it has begun")
    _migrate(first)
    assert second.is_running("counter")
    assert first("ps", "--all", "--quiet") == ""
    assert not list(first.machine.path("/run/torpor/migrating").glob("*"))
