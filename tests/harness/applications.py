"""Real applications in containers, each with a step that changes its state and says what the state was.

All steps count: the n-th answers n - 1, wherever and however often the container has been restored in between. What is
counted is kept in the application's own kind of memory: keys, rows of a session's temporary table, a shell's variable.
"""

import re
import time
from collections.abc import Sequence
from contextlib import suppress

import pexpect

from harness import images
from harness.events import time_limit_s
from harness.machine import MachineError
from harness.podman import Podman

_SRV = "/srv/apps"


class Application:
    """A server on port 8080 that answers GET / with a number. Others say what is different about them."""

    image = images.APPLICATIONS
    options: Sequence[str] = ()
    command: Sequence[str] = ()
    port = 8080
    checkpoint_options: Sequence[str] = ()
    #: What the engine is told by its configuration file, where Podman will not pass it on.
    engine_settings = ""

    def start(self, podman: Podman, name: str) -> str:
        """Run it in a container, ready for its first step; the container's id."""
        if self.engine_settings:
            podman.machine.path("/etc/criu").mkdir(exist_ok=True)
            podman.machine.path("/etc/criu/runc.conf").write_text(self.engine_settings)
        container = podman.run("--name", name, *self.options, self.image, *self.command)
        try:
            self.wait_ready(podman, container)
        except Exception as error:
            with suppress(MachineError):
                error.add_note("---- its log\n" + podman.machine.run("podman", "logs", name, merge=True).stdout)
            raise
        return container

    def wait_ready(self, podman: Podman, container: str) -> None:
        podman.wait_listening(container, self.port)

    def step(self, podman: Podman, container: str) -> int:
        """Do one step; the state before it."""
        return int(podman.get(podman.address(container), port=self.port))


class Tomcat(Application):
    image = images.TOMCAT

    def step(self, podman: Podman, container: str) -> int:
        return int(podman.get(podman.address(container), "/helloworld/"))


class Redis(Application):
    command = ("redis-server", "--protected-mode", "no", "--save", "", "--appendonly", "no")
    port = 6379

    def step(self, podman: Podman, container: str) -> int:
        with podman.connect(podman.address(container), self.port) as connection:
            connection.sendall(b"RPUSH list element\r\n")
            return int(connection.recv(100).decode().lstrip(":")) - 1


class Memcached(Application):
    command = ("memcached", "-u", "memcache", "-m", "64")
    port = 11211

    def wait_ready(self, podman: Podman, container: str) -> None:
        super().wait_ready(podman, container)
        assert self._say(podman, container, b"set steps 0 0 1\r\n0\r\n") == "STORED"

    def step(self, podman: Podman, container: str) -> int:
        return int(self._say(podman, container, b"incr steps 1\r\n")) - 1

    def _say(self, podman: Podman, container: str, words: bytes) -> str:
        with podman.connect(podman.address(container), self.port) as connection:
            connection.sendall(words)
            return connection.recv(100).decode().strip()


class Nginx(Application):
    """What it counts in the memory that its workers share is connections, from 1 on."""

    command = ("nginx", "-c", f"{_SRV}/nginx.conf")

    def step(self, podman: Podman, container: str) -> int:
        return super().step(podman, container) - 1


class PostgreSQL(Application):
    """Rows of a temporary table, which there is only as long as the session: psql's, which stays open all the time."""

    command = ("sh", f"{_SRV}/session.sh")
    # Podman's --tcp-established does not go with --name: it cannot know that both ends are in the container.
    engine_settings = "tcp-established\n"
    port = 5432

    def wait_ready(self, podman: Podman, container: str) -> None:
        podman.wait_for(
            lambda: (
                podman.machine.run(
                    "podman", "exec", container, "test", "-e", "/srv/session/out", check=False
                ).returncode
                == 0
            ),
            "the session to begin",
        )
        self._say(podman, container, "CREATE TEMPORARY TABLE steps (n int); SELECT 'made'", "made")

    def step(self, podman: Podman, container: str) -> int:
        mark = f"after{time.monotonic_ns()}="
        words = f"SELECT '{mark}' || count(*) FROM steps; INSERT INTO steps VALUES (1)"
        return int(self._say(podman, container, words, mark + r"(\d+)"))

    def _say(self, podman: Podman, container: str, words: str, wanted: str) -> str:
        """Write a line to psql; what the session's output has where the pattern *wanted* is found, after the line."""
        podman.exec(container, "sh", "-c", f'echo "{words};" > /srv/session/in')
        found: list[str] = []

        def is_there() -> bool:
            output = podman.exec(container, "cat", "/srv/session/out")
            assert "ERROR" not in output and "connection" not in output, output
            found.extend(re.findall(wanted, output))
            return bool(found)

        podman.wait_for(is_there, f"the session to say {wanted}", timeout_s=20)
        return found[-1]


class MariaDB(Application):
    """Rows of a table that is kept in memory."""

    command = ("mariadbd", "--user=mysql", "--bind-address=0.0.0.0", "--innodb-buffer-pool-size=16M")
    options = ("--tmpfs", "/run/mysqld:mode=1777")
    checkpoint_options = ("--file-locks",)
    port = 3306

    def wait_ready(self, podman: Podman, container: str) -> None:
        super().wait_ready(podman, container)
        self._sql(podman, container, "CREATE DATABASE test; CREATE TABLE test.steps (n INT) ENGINE=MEMORY; SELECT 0")

    def step(self, podman: Podman, container: str) -> int:
        return int(
            self._sql(podman, container, "INSERT INTO test.steps VALUES (1); SELECT COUNT(*) - 1 FROM test.steps")
        )

    def _sql(self, podman: Podman, container: str, words: str) -> str:
        return podman.exec(container, "mariadb", "-N", "-e", words)


class Node(Application):
    command = ("node", f"{_SRV}/counter.js")


class Go(Application):
    command = (f"{_SRV}/counter",)


class PythonPool(Application):
    command = ("python3", f"{_SRV}/pool.py")


class Kinds(Application):
    """inotify, timerfd, signalfd and a deleted open file: `programs/kinds.c`."""

    command = (f"{_SRV}/kinds",)

    def step(self, podman: Podman, container: str) -> int:
        answer = podman.ask(podman.address(container)).strip()
        assert answer.isdigit(), answer
        return int(answer)


class ShellLoop(Application):
    """A loop that prints a number each time it is let go by a line in a file, and starts processes all the while."""

    command = (
        "sh",
        "-c",
        "n=0; while :; do while ! [ -e /tmp/go ]; do sleep 0.02; done; "
        "rm /tmp/go; echo =$n= > /tmp/new; mv /tmp/new /tmp/said; n=$((n+1)); done",
    )

    def wait_ready(self, podman: Podman, container: str) -> None:
        pass

    def step(self, podman: Podman, container: str) -> int:
        loop = "rm -f /tmp/said; touch /tmp/go; while ! [ -e /tmp/said ]; do sleep 0.02; done; cat /tmp/said"
        return int(podman.exec(container, "timeout", f"{time_limit_s(20):g}", "sh", "-c", loop).strip("="))


class TerminalShell(Application):
    """An interactive shell on a terminal, attached to for each step as a person would."""

    options = ("-i", "-t")
    command = ("bash", "--norc", "-i")

    def wait_ready(self, podman: Podman, container: str) -> None:
        with _Attached(podman, container) as terminal:
            terminal.say("N=0; PS1='$ '; stty -echo; echo ready$((1+1))", "ready2")

    def step(self, podman: Podman, container: str) -> int:
        with _Attached(podman, container) as terminal:
            return int(terminal.say("echo =$N=; N=$((N+1))", r"=(\d+)="))


class _Attached:
    """`podman attach`, left with its keys, which do not end the container."""

    def __init__(self, podman: Podman, container: str) -> None:
        line = podman.machine.enter(["podman", "attach", "--detach-keys=ctrl-q", container])
        self._terminal = pexpect.spawn(line[0], line[1:], encoding="utf-8", timeout=time_limit_s(20), echo=False)

    def say(self, words: str, wanted: str) -> str:
        self._terminal.sendline(words)
        self._terminal.expect(wanted)
        match = self._terminal.match
        assert isinstance(match, re.Match)
        return str(match.group(match.re.groups))

    def __enter__(self) -> "_Attached":
        return self

    def __exit__(self, *_: object) -> None:
        self._terminal.send("\x11")
        self._terminal.expect(pexpect.EOF)
        self._terminal.close()


APPLICATIONS: dict[str, Application] = {
    "tomcat": Tomcat(),
    "redis": Redis(),
    "postgresql": PostgreSQL(),
    "mariadb": MariaDB(),
    "nginx": Nginx(),
    "node": Node(),
    "memcached": Memcached(),
    "go": Go(),
    "shell": ShellLoop(),
    "terminal": TerminalShell(),
    "python-pool": PythonPool(),
    "kinds": Kinds(),
}
