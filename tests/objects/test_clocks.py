"""Clocks that show something else where a tree is restored: after a reboot, on another host, some time later.

Another machine's clocks are stood for by the time namespace that the restorer is in.
"""

import os
import subprocess
import time
from collections.abc import Sequence

import pytest

from harness import engine
from harness.flavours import Flavour, start, workload_test
from harness.workload import Workload
from torpor.objects.ns import timens

test_clocks = workload_test("clocks", ["2"])

#: A clock cannot be set to before its beginning, and a machine of the lab has been started a minute ago.
_BACK_S = -min(100, int(time.clock_gettime(time.CLOCK_BOOTTIME) / 4))
_SHIFTS = (_BACK_S, 5000)


def _elsewhere(shift_s: int) -> Sequence[str]:
    # Before 6.2 exec(2) enters no time namespace, and who has made one for its children bears none by vfork(2).
    return [
        "unshare",
        "--time",
        "--fork",
        "--monotonic",
        str(shift_s),
        "--boottime",
        str(2 * shift_s),
        *engine.command(),
    ]


@pytest.mark.root
@pytest.mark.parametrize("flavour", [Flavour.HOST, Flavour.JOB, Flavour.FRESH, Flavour.USER])
def test_the_clocks_go_on_over_generations(flavour: Flavour) -> None:
    with start(flavour, "clocks", ["3"]) as workload:
        workload.wait_ready()
        for shift_s in _SHIFTS:
            workload.dump()
            with engine.using(_elsewhere(shift_s)):
                workload.restore()
        workload.expect_pass()


@pytest.mark.root
def test_a_dump_elsewhere_tells_the_clocks_that_the_program_sees() -> None:
    with engine.using(_elsewhere(7000)), Workload.start("clocks", ["2"]) as workload:
        workload.wait_ready()
        workload.dump()
        workload.restore()
        workload.expect_pass()


@pytest.mark.root
def test_who_may_not_make_a_namespace_says_that_clocks_jump() -> None:
    bound = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", *engine.command()]
    with Workload.start("counter", prefix=bound[:5]) as workload:
        workload.wait_ready()
        workload.dump()
        with engine.using([*_elsewhere(_BACK_S)[:7], *bound]):
            workload.restore()
        assert "the clocks of the restored processes jump" in (workload.images / "restore.log").read_text()
        workload.expect_pass()


@pytest.mark.root
@pytest.mark.parametrize(("shift_s", "told"), [(0, ""), (_BACK_S, "monotonic by -"), (5000, "monotonic by +500")])
def test_the_clocks_of_a_namespace_that_is_joined_are_told(shift_s: int, told: str) -> None:
    line = ["unshare", "--time", "--fork", "--monotonic", str(shift_s), "--boottime", str(shift_s), "cat"]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, bufsize=0) as other, Workload.start("counter") as workload:
        try:
            assert other.stdin and other.stdout
            # Its namespace is made when its child answers.
            other.stdin.write(b"x\n")
            assert other.stdout.read(2) == b"x\n"
            workload.wait_ready()
            began = time.monotonic()
            workload.dump()
            workload.restore(options=["--join-ns", f"time:/proc/{other.pid}/ns/time_for_children"])
            log = (workload.images / "restore.log").read_text()
            # Where it takes that long, it is a jump after all.
            if shift_s or time.monotonic() - began < timens.STALL_S:
                assert ("that they join has other clocks" in log) == bool(told) and told in log
            joined = os.stat(f"/proc/{other.pid}/ns/time_for_children")
            assert os.path.samestat(joined, os.stat(f"/proc/{workload.pid}/ns/time"))
            workload.expect_pass()
        finally:
            other.communicate()
