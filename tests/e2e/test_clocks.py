"""A container that is restored where the clocks show something else: after a reboot, on a host that is up longer.

Another machine's clocks are stood for by the time namespace that Podman is in.
"""

import shutil

import pytest

from harness.compiler import compiled
from harness.events import time_limit_s
from harness.images import APPLICATIONS
from harness.podman import Podman

_ARCHIVE = "/tmp/checkpoint.tar.zst"
_WORK = "/media"


@pytest.mark.parametrize("export", [False, True], ids=["here", "exported"])
def test_a_container_goes_on_by_its_clocks(podman: Podman, export: bool) -> None:
    work = podman.machine.path(_WORK)
    shutil.copy(compiled("clocks"), work / "clocks")
    command = ["/w/clocks", "--status", "/w/status", "--dir", "/w", "--", "6"]
    podman.run("--name=a", f"--volume={_WORK}:/w", "--ulimit=host", APPLICATIONS, *command)
    podman.machine.run("sh", "-c", f"while ! test -e {_WORK}/status; do sleep 0.1; done", timeout_s=time_limit_s(20))
    clocks: list[str] = []
    for shift_s in (-100, 5000):
        # With the clocks of the restore before: runc knows a container by when it started.
        podman.machine.run(
            *clocks, "podman", "container", "checkpoint", *([f"--export={_ARCHIVE}"] if export else []), "a"
        )
        if export:
            podman.machine.run(*clocks, "podman", "rm", "a")
        clocks = ["unshare", "--time", "--monotonic", str(shift_s), "--boottime", str(2 * shift_s)]
        podman.machine.run(*clocks, "podman", "container", "restore", f"--import={_ARCHIVE}" if export else "a")
    podman.machine.run(*clocks, "podman", "kill", "--signal=TERM", "a")
    podman.machine.run(*clocks, "podman", "wait", "a")
    assert (work / "status").read_text() == "pass"
