"""Ctrl-C while Podman's runtime is about to ask us to dump: it hears that nothing is to be, and the container runs on.

Whoever left it waiting hung for ever (a runtime waits for its ``criu``, Podman for its runtime, and we for Podman).
"""

import signal
from collections.abc import Callable

from e2e import shop
from e2e.moving import TORPOR
from e2e.slides import SECOND
from harness import images
from harness.applications import ShellLoop
from harness.podman import Podman

_LOOP = ShellLoop()
#: More often than this no move has its runtime ask.
_MOST = 24


def test_a_container_runs_on(hosts: tuple[Podman, Podman]) -> None:
    first, second = hosts
    container = first.run("--name", "counter", images.APPLICATIONS, *_LOOP.command)
    steps = iter(range(_MOST + 1))
    _until_it_has_moved(first, "podman:counter", lambda: _steps(first, container, next(steps)))
    assert _LOOP.step(second, "counter") == next(steps)


def test_a_pod_runs_on(hosts: tuple[Podman, Podman]) -> None:
    first, second = hosts
    shop.start(first)
    _until_it_has_moved(first, "pod:shop", lambda: shop.goes_on(first))
    assert shop.running(first) == []
    shop.goes_on(second)


def _steps(podman: Podman, container: str, count: int) -> None:
    assert _LOOP.step(podman, container) == count


def _until_it_has_moved(first: Podman, what: str, runs_on: Callable[[], None]) -> None:
    """Move *what*, and send a SIGINT as criu is started for the first time; then for the second; until none is left."""
    _have_criu_interrupt(first)
    n_interrupted = 0
    for number in range(1, _MOST):
        runs_on()
        first.machine.run("sh", "-c", f"rm -rf /run/asked; mkdir /run/asked; echo {number} >/run/asked/when")
        line = f"echo $$ >/run/asked/who; exec {TORPOR} migrate {what} {SECOND} --remote-torpor {TORPOR}"
        done = first.machine.run("sh", "-c", line, check=False, merge=True, timeout_s=100)
        was_asked = first.machine.path(f"/run/asked/{number}").exists()
        print(f"{number}: {done.returncode} {was_asked} {done.stdout}")
        if done.returncode == 0:
            break
        assert was_asked and done.returncode in (1, 128 + signal.SIGINT), done.stdout
        assert "on here" in done.stdout or "nterrupt" in done.stdout, done.stdout
        n_interrupted += 1
    assert done.returncode == 0 and n_interrupted >= 2, done.stdout
    first.machine.run("rm", "-r", "/run/asked")


def _have_criu_interrupt(podman: Podman) -> None:
    """At its so many-th start by a runtime it does, and then waits a little, so that it comes when that was heard."""
    criu = podman.machine.path("/usr/local/sbin/criu")
    criu.rename(criu.with_name("criu.real"))
    criu.write_text(
        "#!/bin/sh\n"
        "case $1 in swrk) if [ -e /run/asked/who ]; then\n"
        "n=1; while ! mkdir /run/asked/$n 2>/dev/null; do n=$((n+1)); done\n"
        '[ $n = "$(cat /run/asked/when)" ] && kill -INT "$(cat /run/asked/who)" && sleep 0.5\n'
        'fi;; esac\nexec /usr/local/sbin/criu.real "$@"\n'
    )
    criu.chmod(0o755)
