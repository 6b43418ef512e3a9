"""Either side of a container's migration is killed, or the link cut, at every word that they say: one of it lives, on
one host or asleep in Podman's storage on the source; it goes on where it was, and nothing else is left.
"""

import random
import sys

import pytest

from e2e.moving import TORPOR, write_command
from e2e.slides import SECOND
from harness import images, relay
from harness.applications import ShellLoop
from harness.machine import MachineError
from harness.podman import Podman
from harness.rounds import rounds

_LOOP = ShellLoop()
VICTIMS = ("source", "destination", "link")
MESSAGES = ("documents", "images", "begin", "waits", "files", "rebuild", "ready", "go", "runs")
SEED = 20261128
#: The third is one whose control group is frozen (v1): who is killed leaves that to the caretaker.
_IN_CI = [
    ("begin", "source", 0.3),
    ("files", "destination", 0.0),
    ("rebuild", "source", 0.0),
    ("go", "link", -0.001),
]


def _cases() -> list[tuple[str, str, float]]:
    rng = random.Random(SEED)
    every = [(message, victim, 0.0) for message in MESSAGES for victim in VICTIMS]
    more = [(rng.choice(MESSAGES), rng.choice(VICTIMS), rng.uniform(-0.2, 0.5)) for _ in range(100)]
    return (_IN_CI + every + more)[: rounds(len(_IN_CI), 60)]


def test_one_of_it_lives_whoever_dies(hosts: tuple[Podman, Podman]) -> None:
    first, second = hosts
    container, count = "", 0
    for message, victim, delay in _cases():
        case = f"{victim} at {message!r} {delay:+.2f} s"
        if not _names(first):
            container = first.run("--name", "counter", images.APPLICATIONS, *_LOOP.command)
            count = 0
        assert _LOOP.step(first, container) == count, case
        code = _migrate(first, second, message, victim, delay)
        where = _judge(first, second, case, code)
        assert _LOOP.step(second if where == "there" else first, "counter") == count + 1, f"{case}: {where}"
        count += 2
        print(f"{case}: exit code {code}, it is {where}")
        for podman in hosts:
            assert not _left(podman), f"{case}: {podman.machine.name}: {_left(podman)}"
        second("rm", "--all", "--force", "--time=0")


@pytest.mark.parametrize("words", [(), ("--rm",)], ids=["kept", "rm"])
def test_it_sleeps_where_it_was_if_the_last_word_is_lost(words: tuple[str, ...], hosts: tuple[Podman, Podman]) -> None:
    """The source is killed, and ssh with it, when the tree has been killed and the other host has not heard so."""
    first, second = hosts
    container = first.run("--name", "counter", *words, images.APPLICATIONS, *_LOOP.command)
    assert _LOOP.step(first, container) == 0
    first.exec(container, "sh", "-c", "echo kept > /root/written")
    assert _migrate(first, second, "go", "both", -0.0001) in (137, -9)
    for podman in hosts:
        podman.wait_for(lambda podman=podman: not _at_work(podman), "all is at rest")  # type: ignore[misc]
    assert not _names(second) and not _names(first, running=True)
    archives = list(first.machine.path("/run/torpor/migrating").glob("*/container.tar.new"))
    assert len(archives) == (1 if words else 0), _left(first)
    what = f"/run/torpor/migrating/{archives[0].parent.name}/container.tar.new" if archives else "podman:counter"
    assert (first.status(container)[0]["State"] if not words else "") in ("", "exited")
    first.machine.run(TORPOR, "restore", what)
    assert _LOOP.step(first, "counter") == 1 and first.exec("counter", "cat", "/root/written").strip() == "kept"


def _migrate(first: Podman, second: Podman, message: str, victim: str, delay: float) -> int:
    """Try to, with that harm; how the command ended."""
    harm = f"exec {sys.executable} {relay.__file__} {message} {delay} {victim}"
    line = [TORPOR, "migrate", "podman:counter", SECOND]
    if victim == "destination":
        write_command(second, "/usr/local/sbin/harmed", f'{harm} {sys.executable} -m torpor.cli.torpor "$@"')
        line += ["--remote-torpor", "/usr/local/sbin/harmed"]
    else:
        write_command(first, "/usr/local/sbin/harm", f'{harm} ssh "$@"')
        line += ["--remote-torpor", TORPOR, "--rsh", "/usr/local/sbin/harm"]
    return first.machine.run(*line, check=False, merge=True, timeout_s=180).returncode


def _judge(first: Podman, second: Podman, case: str, code: int) -> str:
    """Where it lives, once nobody is at work any more."""
    for podman in (first, second):
        podman.wait_for(lambda podman=podman: not _at_work(podman), f"{case}: {podman.machine.name} is at rest")  # type: ignore[misc]
    here, there = _names(first, running=True), _names(second, running=True)
    states = f"{case}: here {here}, there {there}, exit code {code}"
    assert len(here) + len(there) <= 1, states
    if there:
        first("rm", "--all", "--force", "--time=0")  # asleep, for nobody has said that it runs
        return "there"
    assert not _names(second), f"{states}: {_names(second)} is left there"
    if not here:
        assert code in (4, 137, -9), states
        first.machine.run(TORPOR, "restore", "podman:counter")
        return "asleep here"
    return "here"


def _names(podman: Podman, *, running: bool = False) -> list[str]:
    return podman("ps", *([] if running else ["--all"]), "--format", "{{.Names}}").split()


def _at_work(podman: Podman) -> bool:
    """Whether Podman, an engine or torpor is about something there."""
    try:
        said = podman.machine.out("ps", "-e", "-o", "args=")
    except MachineError:
        return True
    words = ("torpor.cli.torpor", " container ", "swrk", "bin/criu", "runc ")
    return any(word in line for line in said.splitlines() for word in words if "conmon" not in line)


def _left(podman: Podman) -> list[str]:
    """What nobody needs any more."""
    found = [str(path.name) for path in podman.machine.path("/var/tmp").glob("checkpoint*")]
    for place in ("unpacked", "migrating"):
        found += [f"{place}/{each.name}" for each in podman.machine.path(f"/run/torpor/{place}").glob("*")]
    containers = _names(podman, running=True)
    namespaces = list(podman.machine.path("/run/netns").glob("netns-*"))
    return found + ([] if len(namespaces) <= len(containers) else [each.name for each in namespaces])
