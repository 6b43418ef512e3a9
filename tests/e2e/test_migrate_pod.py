"""``torpor migrate pod:NAME``: the containers of a pod move as one, or all of them run on where they were."""

import sys

from e2e import shop
from e2e.moving import TORPOR, write_command
from e2e.slides import SECOND
from harness import images, relay
from harness.applications import ShellLoop
from harness.machine import MachineError
from harness.podman import Podman
from harness.rounds import rounds

_LOOP = ShellLoop()
_CASES = [
    # At which word, who, when; and the link of the pod itself (1) or of a container (2, 3).
    ("waits", "destination", 0.0, 1),
    ("rebuild", "source", 0.0, 2),
    ("ready", "destination", 0.0, 3),
    ("go", "link", -0.001, 2),
    ("go", "source", 0.0, 2),
    ("documents", "destination", 0.0, 2),
    ("waits", "source", 0.0, 1),
    ("waits", "source", 4.0, 1),
    ("waits", "source", 6.0, 1),
    ("files", "link", 0.0, 3),
    ("files", "source", 0.3, 2),
    ("rebuild", "destination", 0.0, 2),
    ("rebuild", "link", 0.0, 3),
    ("ready", "source", 0.0, 2),
    ("ready", "link", 0.0, 2),
    ("go", "destination", 0.0, 3),
    ("go", "destination", 0.1, 1),
]
#: Always writes much to its root; and has two files open in /dev/shm that it has just made.  Both count in a link.
_WRITER = """
import os
file, number = open("/var/much", "wb", buffering=0), 0
while True:
    number += 1
    for each in range(48):
        os.pwrite(file.fileno(), os.urandom(1 << 10) * 1024, each << 20)
    os.symlink(str(number), "/run/next")
    os.rename("/run/next", "/run/n")
"""
_MAKER = """
import os, time
held, number = [], 0
while True:
    number += 1
    held.append(open(f"/dev/shm/{number}", "w"))
    if len(held) > 2:
        with held.pop(0) as old:
            os.unlink(old.name)
    if number % 50 == 0:
        os.symlink(str(number), "/run/next")
        os.rename("/run/next", "/run/n")
    time.sleep(0.001)
"""


def _migrate(first: Podman, *words: str, check: bool = True) -> str:
    line = [TORPOR, "migrate", *words, "--remote-torpor", TORPOR]
    done = first.machine.run(*line, check=check, merge=True, timeout_s=240)
    assert check or done.returncode != 0, done.stdout
    return done.stdout


def test_a_pod_moves_as_one(hosts: tuple[Podman, Podman]) -> None:
    first, second = hosts
    first("run", "-d", "--pod", "new:other", "--name", "occupant", images.APPLICATIONS, "sleep", "100000")
    shop.start(first, "-p", "8081:8080")
    address, before = shop.address(first), shop.asked(first)
    assert "torpor migrate pod:NAME" in _migrate(first, "podman:web", SECOND, check=False)
    assert "nothing stands in the way" in _migrate(first, "pod:shop", SECOND, "--dry-run")
    assert f"shop runs on {SECOND}" in _migrate(first, "podman:shop", SECOND)
    assert shop.running(first) == ["occupant"] and shop.running(second) == ["db", "web"]
    assert first("pod", "ps", "--format", "{{.Name}}") == "other"
    shop.goes_on(second)
    assert shop.asked(second) > before
    assert shop.address(second) == address != "" and second.exec("web", "hostname") == "till"
    assert second("pod", "inspect", "--format", "{{.Labels.kind}}", "shop") == "shop"
    assert "8081" in second("port", "web")


def test_a_pod_that_cannot_move_is_refused_by_name(hosts: tuple[Podman, Podman]) -> None:
    first, second = hosts
    shop.start(first)
    first("pod", "create", "--name", "close", "--share", "net,pid")
    first.run("--pod", "close", "--name", "inside", images.APPLICATIONS, "sleep", "100000")
    assert "pod:close shares pid" in _migrate(first, "pod:close", SECOND, check=False)
    first("pod", "create", "--name", "bound", "--sysctl", "net.ipv4.ip_forward=1")
    first.run("--pod", "bound", "--name", "within", images.APPLICATIONS, "sleep", "100000")
    assert "--sysctl" in _migrate(first, "pod:bound", SECOND, check=False)
    # Nothing is made there for what somebody else has.
    second("create", "--name", "web", images.APPLICATIONS, "true")
    said = _migrate(first, "pod:shop", SECOND, check=False)
    assert "a container called web here" in said and "runs on here" in said, said
    assert second("pod", "ps", "--quiet") == ""
    second("rm", "web")
    # What is known only when it is tried.
    second.machine.path("/usr/local/sbin/criu").unlink()
    said = _migrate(first, "pod:shop", SECOND, check=False)
    assert "all of pod:shop runs on here" in said, said
    assert _left(second) == []
    shop.goes_on(first)


def test_what_one_writes_by_a_mapping_gets_there_for_all(hosts: tuple[Podman, Podman]) -> None:
    """Podman lists containers by their ids: here the one that only reads the file in /dev/shm carries it."""
    first, second = hosts
    shop.start(first)
    while first.inspect("web", "{{.Id}}") > first.inspect("db", "{{.Id}}"):
        first("pod", "rm", "--force", "--time=0", shop.NAME)
        shop.start(first)
    # Without rounds: whose protected pages are written to changes the file's times as well.
    assert f"shop runs on {SECOND}" in _migrate(first, "pod:shop", SECOND, "--rounds=0")
    shop.goes_on(second)


def test_what_one_makes_at_the_last_moment_is_there_before_it(hosts: tuple[Podman, Podman]) -> None:
    """The other one carries /dev/shm, after files of its own: until then none is to be rebuilt."""
    first, second = hosts
    _start_makers(first)
    while first.inspect("writer", "{{.Id}}") > first.inspect("maker", "{{.Id}}"):
        first("pod", "rm", "--force", "--time=0", "makers")
        _start_makers(first)
    _makers_go_on(first)
    assert f"makers runs on {SECOND}" in _migrate(first, "pod:makers", SECOND)
    _makers_go_on(second)


def _start_makers(podman: Podman) -> None:
    podman("pod", "create", "--name", "makers")
    for name, program in (("writer", _WRITER), ("maker", _MAKER)):
        podman.run("--name", name, "--pod", "makers", images.APPLICATIONS, "python3", "-c", program)


def _makers_go_on(podman: Podman) -> None:
    def count(name: str) -> int:
        return int(podman.exec(name, "sh", "-c", "readlink /run/n || echo 0"))

    before = {name: count(name) for name in ("writer", "maker")}
    podman.wait_for(lambda: all(count(name) > number for name, number in before.items()), "they go on")


def test_all_or_none_of_it_runs_whoever_dies(hosts: tuple[Podman, Podman]) -> None:
    first, second = hosts
    for message, victim, delay, link in _CASES[: rounds(5, len(_CASES))]:
        case = f"{victim} at {message!r} of link {link} {delay:+.2f} s"
        if not shop.running(first):
            shop.start(first)
        before = shop.asked(first)
        code = _migrate_harmed(first, second, message, victim, delay, link)
        where = _judge(first, second, case, code)
        shop.goes_on(second if where == "there" else first)
        assert shop.asked(second if where == "there" else first) > before, case
        print(f"{case}: exit code {code}, it is {where}")
        if where == "there":
            second("pod", "rm", "--all", "--force", "--time=0")
        for podman in hosts:
            assert not _left(podman, is_there=podman is first and where != "there"), f"{case}: {podman.machine.name}"


def test_what_is_left_asleep_of_it_wakes_by_one_command(hosts: tuple[Podman, Podman]) -> None:
    """Whoever says that a container is given up is killed, and its link is cut, before the other host hears it."""
    first, second = hosts
    shop.start(first)
    before = shop.asked(first)
    assert _migrate_harmed(first, second, "go", "both", -0.0001, 2, ">=") in (4, 137, -9)
    for podman in hosts:
        podman.wait_for(lambda podman=podman: not _at_work(podman), f"{podman.machine.name} is at rest")  # type: ignore[misc]
    assert shop.running(second) == [] and _left(second) == []
    assert shop.running(first) != sorted(shop.MEMBERS), "none was given up"
    assert f"torpor restore pod:{shop.NAME}" in _migrate(first, "pod:shop", SECOND, check=False)
    said = first.machine.run(TORPOR, "restore", f"pod:{shop.NAME}", "--tcp-established").stdout
    assert not _rules(first), _rules(first)
    shop.goes_on(first)
    assert shop.asked(first) > before, said
    assert (
        "nothing of pod:shop sleeps"
        in first.machine.run(TORPOR, "restore", f"pod:{shop.NAME}", check=False, merge=True).stdout
    )


def test_all_takes_pods_and_what_is_in_none(hosts: tuple[Podman, Podman]) -> None:
    first, second = hosts
    shop.start(first)
    container = first.run("--name", "counter", images.APPLICATIONS, *_LOOP.command)
    assert _LOOP.step(first, container) == 0
    said = _migrate(first, "--all", SECOND)
    assert "2 of 2 have been moved" in said, said
    assert first("ps", "--all", "--quiet") == "" and first("pod", "ps", "--quiet") == ""
    assert _LOOP.step(second, "counter") == 1
    shop.goes_on(second)


def _migrate_harmed(
    first: Podman, second: Podman, message: str, victim: str, delay: float, link: int, which: str = "=="
) -> int:
    """Try to, with that harm on the *link*-th way to the other host, or on all from there on (>=); how it ended."""
    harm = f"{sys.executable} {relay.__file__} {message} {delay} {victim}"
    count = "n=1; while ! mkdir /run/way-$n 2>/dev/null; do n=$((n+1)); done"
    only = f"{count}; [ $((n {which} {link})) = 1 ] || exec {{}}\nexec {harm} {{}}"
    for podman in (first, second):
        podman.machine.run("sh", "-c", "rm -rf /run/way-*")
    line = [TORPOR, "migrate", "pod:shop", SECOND]
    if victim == "destination":
        inner = f'{sys.executable} -m torpor.cli.torpor "$@"'
        write_command(second, "/usr/local/sbin/harmed", only.format(inner, inner))
        line += ["--remote-torpor", "/usr/local/sbin/harmed"]
    else:
        write_command(first, "/usr/local/sbin/harm", only.format('ssh "$@"', 'ssh "$@"'))
        line += ["--remote-torpor", TORPOR, "--rsh", "/usr/local/sbin/harm"]
    done = first.machine.run(*line, check=False, merge=True, timeout_s=240)
    print(done.stdout)
    return done.returncode


def _judge(first: Podman, second: Podman, case: str, code: int) -> str:
    """Where it lives, once nobody is at work any more."""
    for podman in (first, second):
        podman.wait_for(lambda podman=podman: not _at_work(podman), f"{case}: {podman.machine.name} is at rest")  # type: ignore[misc]
    here, there = shop.running(first), shop.running(second)
    states = f"{case}: here {here}, there {there}, exit code {code}"
    every = sorted(shop.MEMBERS)
    assert here in ([], every) and there in ([], every) and not (here and there), states
    if there:
        first("pod", "rm", "--all", "--force", "--time=0")
        return "there"
    assert _left(second) == [], f"{states}: {_left(second)}"
    if not here:
        assert code in (4, 137, -9), states
        first.machine.run(TORPOR, "restore", f"pod:{shop.NAME}", "--tcp-established")
        assert not _rules(first), _rules(first)
        return "asleep here"
    return "here"


def _rules(podman: Podman) -> str:
    """What is locked in the pod's network."""
    infra = podman("pod", "inspect", "--format", "{{.InfraContainerID}}", shop.NAME)
    return podman.machine.out("nsenter", "-n", "-t", podman.inspect(infra, "{{.State.Pid}}"), "nft", "list", "ruleset")


def _at_work(podman: Podman) -> bool:
    """Whether Podman, an engine or torpor is about something there."""
    try:
        said = podman.machine.out("ps", "-e", "-o", "args=")
    except MachineError:
        return True
    words = ("torpor.cli.torpor", " container ", "pod rm", "swrk", "bin/criu", "runc ")
    return any(word in line for line in said.splitlines() for word in words if "conmon" not in line)


def _left(podman: Podman, *, is_there: bool = False) -> list[str]:
    """What nobody needs any more; *is_there*: the pod is."""
    found = [path.name for path in podman.machine.path("/var/tmp").glob("checkpoint*")]
    for place in ("unpacked", "migrating"):
        found += [f"{place}/{each.name}" for each in podman.machine.path(f"/run/torpor/{place}").glob("*")]
    namespaces = [each.name for each in podman.machine.path("/run/netns").glob("netns-*")]
    found += namespaces if len(namespaces) > is_there else []
    if not is_there:
        found += podman("ps", "--all", "--format", "{{.Names}}").split() + podman("pod", "ps", "--quiet").split()
    return found
