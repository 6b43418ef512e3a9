"""Tasks in a confined domain: code is put where there is room for it, and threads come last.

What a kernel with SELinux says of it is tested in tests/vm; here the ways that are gone there are.
"""

import pytest

from harness import confined, engine
from harness.flavours import Flavour, carry_through, start

pytestmark = pytest.mark.root

#: The next id is chosen by a number that the whole machine has: who is born beside us in that moment gets ours.
_HOST = pytest.param(Flavour.HOST, marks=pytest.mark.alone)


@pytest.mark.parametrize("flavour", [_HOST, Flavour.FRESH])
@pytest.mark.parametrize("workload", ["threads", "posix_timers", "interrupted", "credentials"])
def test_a_confined_task(workload: str, flavour: Flavour) -> None:
    with start(flavour, workload) as running:
        running.wait_ready()
        with engine.using(confined.engine()):
            carry_through(flavour, running)
        running.expect_pass()


@pytest.mark.parametrize("workload", ["unix_pairs", "unix_names"])
def test_sockets_of_a_confined_task(workload: str) -> None:
    with start(Flavour.HOST, workload) as running:
        running.wait_ready()
        with engine.using(confined.engine()):
            carry_through(Flavour.HOST, running)
        running.expect_pass()
