"""``torpor migrate``: databases in containers move under the load of their benchmarks, and a Tomcat under requests.

The clients notice nothing but some silence: no connection breaks, and what the server has is what they were told.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

from e2e.moving import TORPOR
from e2e.segment import SERVICE, segment
from harness import images
from harness.events import time_limit_s
from harness.machine import Machine
from harness.podman import Podman
from harness.skips import missing

hosts = segment
_REDIS = ("redis-server", "--protected-mode", "no", "--save", "", "--appendonly", "no", "--port", "8080")
_AT_ONCE = 5_000
_POSTGRESQL = """
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
install -d -o postgres /run/postgresql /srv/pg
su postgres -c "$(command -v initdb) -D /srv/pg -A trust" && echo "host all all all trust" >>/srv/pg/pg_hba.conf
exec su postgres -c "exec $(command -v postgres) -D /srv/pg -p 8080 -c listen_addresses='*' -c fsync=off"
"""

#: Asks for number after number and never again for the same, each time by a new connection; two of it at once.
_ASKER = f"""
import os, threading, time, urllib.request
lock, seen, longest = threading.Lock(), [], [0.0]
def ask():
    while not os.path.exists("/run/enough"):
        began = time.monotonic()
        with urllib.request.urlopen("http://{SERVICE}:8080/helloworld/", timeout=60) as answer:
            number = int(answer.read())
        with lock:
            seen.append(number)
            longest[0] = max(longest[0], time.monotonic() - began)
            open("/run/asked", "w").write(str(len(seen)))
askers = [threading.Thread(target=ask) for _ in range(2)]
for each in askers: each.start()
for each in askers: each.join()
first = min(seen)
print(sorted(seen) == list(range(first, first + len(seen))), len(seen), f"{{longest[0]:.2f}}")
"""


def _networks(first: Podman, second: Podman) -> tuple[str, ...]:
    for each, parent in ((first, f"to-{second.machine.name}"), (second, "br0")):
        each("network", "create", "-d", "macvlan", "-o", f"parent={parent}", "--subnet", "192.0.2.0/24", "segment")
    return ("--network", "segment", "--ip", SERVICE)


def _migrate(first: Podman, second: Podman) -> None:
    line = [TORPOR, "migrate", "podman:counter", second.machine.name, "--remote-torpor", TORPOR, "--json"]
    told = json.loads(first.machine.run(*line, timeout_s=180).stdout)
    rounds = ", ".join(f"{each['n_bytes'] / 1e6:.1f}" for each in told["rounds"])
    print(
        f"stopped for {told['downtime_s']:.2f} s, {told['total_s']:.1f} s in all; {told['memory_bytes'] / 1e6:.1f} MB "
        f"of memory, {told['sent_bytes'] / 1e6:.1f} MB sent; rounds of {rounds} MB"
    )
    assert second.is_running("counter")


def _in_client(*line: str) -> list[str]:
    return ["ip", "netns", "exec", "client", *line]


class _Load:
    """A benchmark that is run again and again, each time with new connections, until it is told that it is enough."""

    def __init__(self, machine: Machine, *line: str) -> None:
        self._machine, self._log = machine, machine.base / "benchmark.log"
        again = 'while "$@"; do echo AGAIN; if test -e /run/enough; then exit 0; fi; done; exit 1'
        self._process = machine.spawn(*_in_client("sh", "-c", again, "sh", *line), log=self._log)

    def finish(self) -> str:
        """What all of them have printed."""
        assert self._process.poll() is None, self._log.read_text()
        self._machine.path("/run/enough").touch()
        try:
            assert self._process.wait(time_limit_s(60)) == 0, self._log.read_text()
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{self._log.read_text()[-2000:]}\n{self._sockets()}") from error
        return self._log.read_text()

    def _sockets(self) -> str:
        """What both ends have of the connections, for whoever looks into a load that stands still."""
        show = ("ss", "-tanoie")
        told = [self._machine.out(*_in_client(*show)), self._machine.out(*_in_client("ip", "neigh"))]
        inside = self._machine.out("podman", "inspect", "counter", "--format", "{{.State.Pid}}")
        for line in (show, ("ip", "address"), ("ip", "neigh"), ("iptables-save",), ("nft", "list", "ruleset")):
            told.append(self._machine.run("nsenter", "-t", inside.strip(), "-n", *line, check=False).stdout)
        told.append(self._machine.run("cat", f"/proc/{inside.strip()}/stack", f"/proc/{inside.strip()}/status").stdout)
        return "\n\n".join(told)


def test_redis_under_its_benchmark(hosts: tuple[Podman, Podman]) -> None:
    first, second = hosts
    first.run("--name", "counter", *_networks(first, second), images.APPLICATIONS, *_REDIS)
    first.wait_listening("counter", 8080)
    benchmark = ("redis-benchmark", "-h", SERVICE, "-p", "8080", "-q", "-n")
    fill = ("100000", "-P", "100", "-r", "1000000", "-d", "500", "-t", "set")
    second.machine.run(*_in_client(*benchmark, *fill))
    load = _Load(second.machine, *benchmark, str(_AT_ONCE), "-c", "20", "incr", "counter")
    _migrate(first, second)
    said = load.finish()
    assert "rror" not in said, said
    get = _in_client("redis-cli", "-h", SERVICE, "-p", "8080", "get", "counter")
    assert int(second.machine.out(*get)) == said.count("AGAIN") * _AT_ONCE > 0


def test_postgresql_under_pgbench(hosts: tuple[Podman, Podman]) -> None:
    first, second = hosts
    network = _networks(first, second)
    first.run("--name", "counter", *network, images.APPLICATIONS, "sh", "-c", _POSTGRESQL)
    first.wait_listening("counter", 8080)
    bench = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"))), None)
    if bench is None:
        missing("the command pgbench (Debian: postgresql-client)")
    words = ("-h", SERVICE, "-p", "8080", "-U", "postgres")
    # Whoever comes between that it listens and that it is up is told to come later.
    is_up = _in_client(str(bench.with_name("pg_isready")), "-q", *words)
    second.wait_for(lambda: second.machine.run(*is_up, check=False).returncode == 0, "the server is up")
    second.machine.run(*_in_client(str(bench), *words, "-i", "-s", "3", "-q", "postgres"))
    load = _Load(second.machine, str(bench), *words, "-c", "4", "-T", "2", "-n", "postgres")
    _migrate(first, second)
    said = load.finish()
    done = sum(int(each) for each in re.findall(r"actually processed: (\d+)", said))
    assert said.count("failed transactions: 0 ") == said.count("AGAIN") and done > 0, said
    query = (
        "select (select count(*) from pgbench_history), "
        "(select sum(delta) from pgbench_history) = (select sum(abalance) from pgbench_accounts)"
    )
    told = second.machine.out(*_in_client(str(bench.with_name("psql")), *words, "-At", "-c", query, "postgres"))
    assert told == f"{done}|t"


def test_tomcat_answers_each_request_once(hosts: tuple[Podman, Podman]) -> None:
    first, second = hosts
    first.run("--name", "counter", *_networks(first, second), images.TOMCAT)
    first.wait_listening("counter", 8080)
    log = second.machine.base / "asked.log"
    asker = second.machine.spawn(*_in_client(sys.executable, "-c", _ASKER), log=log)
    _wait_for_answers(second, asker, log)
    _migrate(first, second)
    _wait_for_answers(second, asker, log)
    second.machine.path("/run/enough").touch()
    assert asker.wait(time_limit_s(90)) == 0, log.read_text()
    told = log.read_text().split()
    print(f"{told[1]} requests, the slowest took {told[2]} s")
    assert told[0] == "True", log.read_text()


def _wait_for_answers(podman: Podman, asker: "subprocess.Popen[bytes]", log: Path) -> None:
    """Twenty more than there are."""
    told = podman.machine.path("/run/asked")

    def asked() -> int:
        assert asker.poll() is None, log.read_text()
        return int(told.read_text() or 0) if told.exists() else 0

    before = asked()
    podman.wait_for(lambda: asked() >= before + 20, "requests are answered")
