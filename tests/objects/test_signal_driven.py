"""Signal-driven sockets: a datagram that comes while its socket is being restored has its owner signalled."""

import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.events import time_limit_s
from harness.program import Program

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]

#: Signalled, it takes all that there is; what was signalled with is said.
_PROGRAM = """
import fcntl, os, signal, socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 0))
server.setblocking(False)
how, number = sys.argv[1], int(sys.argv[2])
signal.pthread_sigmask(signal.SIG_BLOCK, {number or signal.SIGIO})
if number:
    fcntl.fcntl(server, fcntl.F_SETSIG, number)
fcntl.fcntl(server, fcntl.F_SETOWN, -os.getpgrp() if how == "group" else os.getpid())
fcntl.fcntl(server, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
print("port", server.getsockname()[1], flush=True)
told = signal.sigwaitinfo({number or signal.SIGIO})
print("told", told.si_code, server.recv(100).decode(), flush=True)
signal.pause()
"""


def _send_once_it_is_there(port: int, end: threading.Event) -> None:
    """A single datagram.  That one is refused would not tell: the kernel does so a thousand times a second at most."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        while not end.is_set():
            if f":{port:04X} " in Path("/proc/net/udp").read_text():
                client.sendto(b"early", ("127.0.0.1", port))
                return
            time.sleep(0.001)


@pytest.mark.parametrize(("how", "number", "code"), [("process", 0, 0x80), ("group", 0, 0x80), ("process", 40, 1)])
def test_a_datagram_before_the_owner(how: str, number: int, code: int) -> None:
    with Program() as program:
        program.start([sys.executable, "-c", _PROGRAM, how, str(number)])
        program.wait_log(r"port \d+\n")
        port = int(program.log().split()[1])
        program.checkpoint()
        end = threading.Event()
        sender = threading.Thread(target=_send_once_it_is_there, args=(port, end))
        sender.start()
        try:
            program.restore()
            program.wait_log(rf"told {code} early\n", timeout_s=time_limit_s(10))
        finally:
            end.set()
            sender.join()
