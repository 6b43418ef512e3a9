"""What user and pid namespaces forbid, by sysctls of their own."""

import os
import signal
import time

import pytest

from harness.events import become_subreaper
from harness.flavours import Flavour, carry_through, start
from torpor.base.ids import Pid
from torpor.kernel import interrupts
from torpor.kernel.namespaces import CLONE_NEWPID
from torpor.kernel.pidfd import open_pidfd
from torpor.objects.ns import limits

pytestmark = pytest.mark.root


@pytest.mark.parametrize(("flavour", "args"), [(Flavour.FRESH, ()), (Flavour.USER, ("user",))])
def test_what_its_namespaces_forbid_is_forbidden_afterwards(flavour: Flavour, args: "tuple[str, ...]") -> None:
    with start(flavour, "ns_limits", args) as running:
        running.wait_ready()
        carry_through(flavour, running)
        running.expect_pass()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whoever_looked_is_gone_when_we_are(number: int) -> None:
    """Also where nobody reaps orphans: a dead one in a pid namespace keeps its first process from ending."""
    become_subreaper()
    reader, writer = os.pipe()

    def look() -> str:
        os.write(writer, b".")
        time.sleep(1000)
        return ""

    with start(Flavour.FRESH, "ns_limits") as running:
        running.wait_ready()
        child = os.fork()
        if not child:
            try:
                interrupts.catch()
                limits._there(open_pidfd(Pid(running.pid)), CLONE_NEWPID, look)
            finally:
                os._exit(0)
        os.close(writer)
        assert os.read(reader, 1) == b"."
        os.kill(child, number)
        assert os.read(reader, 1) == b"", "somebody has the pipe still"
        os.close(reader)
        os.kill(running.pid, signal.SIGKILL)
        running.wait_gone()
        os.waitpid(child, 0)
