import sys

import pytest

from harness.flavours import workload_test
from harness.program import Program

pytestmark = pytest.mark.usefixtures("own_network")

test_udp = workload_test("udp")

#: A datagram whose end is still to come (MSG_MORE), or nothing; the argument says which.
_BEGINS = """
import signal, socket, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [10])
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(("127.0.0.1", 0))
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.connect(receiver.getsockname())
sender.send(b"begun", int(sys.argv[1]))
print("ready", flush=True)
signal.sigwait([10])
"""


@pytest.mark.root
@pytest.mark.parametrize("flags", [0x8000, 0])
def test_a_datagram_that_is_not_whole_is_told_as_lost(flags: int) -> None:
    with Program() as program:
        program.start([sys.executable, "-c", _BEGINS, str(flags)])
        program.wait_log("ready\n")
        program.checkpoint()
        told = (program.images / "dump.log").read_text()
        assert ("a datagram begun with MSG_MORE" in told) == bool(flags)
        program.restore()
