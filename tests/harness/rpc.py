"""CRIU's RPC from the client's side: a worker to talk to, and a command that does by RPC what a command line says.

    python harness/rpc.py dump -t PID -D DIRECTORY [-o LOG] [--leave-running] [-v4]
    python harness/rpc.py restore -d -D DIRECTORY [-o LOG] [--pidfile FILE]

As a command it can stand in the engine's place (`harness.engine.using`), so that any workload can go by RPC.  What the
worker told goes to DIRECTORY/told, a line each.
"""

import argparse
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torpor.images import messages as m

_TYPE = m.criu_req_type
_TIME_LIMIT_S = 60


class Client:
    """Our end of the connection, and the notifications met."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.told: list[str] = []
        self.pids: dict[str, int] = {}
        self.refuses = ""

    def ask(self, request: m.criu_req) -> m.criu_resp:
        """Send the request, acknowledge what we are told, and give the answer."""
        self.say(request)
        return self.hear()

    def say(self, request: m.criu_req) -> None:
        """Send the request."""
        self._connection.send(request.SerializeToString())

    def hear(self) -> m.criu_resp:
        """Acknowledge what we are told, and give the answer."""
        while True:
            answer = m.criu_resp.FromString(self._connection.recv(1 << 16))
            if answer.type != _TYPE.NOTIFY:
                return answer
            action = answer.notify.script
            self.told.append(action)
            if answer.notify.pid:
                self.pids[action] = answer.notify.pid
            agreed = m.criu_req(type=_TYPE.NOTIFY, notify_success=action != self.refuses)
            self._connection.send(agreed.SerializeToString())

    def send(self, packet: bytes) -> m.criu_resp:
        """Send any bytes; the answer."""
        self._connection.send(packet)
        return m.criu_resp.FromString(self._connection.recv(1 << 16))


@contextmanager
def worker(*fds: int) -> Iterator[Client]:
    """A worker, which has *fds* by the same numbers; waited for at the end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line = [sys.executable, "-m", "torpor.cli.criu.main", "swrk", str(theirs.fileno())]
    process = subprocess.Popen(line, pass_fds=[theirs.fileno(), *fds])
    theirs.close()
    ours.settimeout(_TIME_LIMIT_S)
    try:
        yield Client(ours)
    finally:
        ours.close()
        try:
            process.wait(_TIME_LIMIT_S)
        finally:
            process.kill()


def command() -> list[str]:
    """What stands in the engine's place."""
    return [sys.executable, str(Path(__file__).resolve())]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["dump", "restore"])
    parser.add_argument("-t", dest="pid", type=int, default=0)
    parser.add_argument("-D", dest="directory", type=Path)
    parser.add_argument("-o", dest="log", default="rpc.log")
    parser.add_argument("-v", dest="level", type=int, default=4)
    parser.add_argument("-d", action="store_true")
    parser.add_argument("--pidfile", type=Path)
    parser.add_argument("--leave-running", action="store_true")
    parser.add_argument("--external", action="append", default=[])
    words = parser.parse_args()
    fd = os.open(words.directory, os.O_RDONLY)
    opts = m.criu_opts(images_dir_fd=fd, log_file=words.log, log_level=words.level, notify_scripts=True)
    opts.leave_running = words.leave_running
    opts.external.extend(words.external)
    if words.pid:
        opts.pid = words.pid
    kind = {"dump": _TYPE.DUMP, "restore": _TYPE.RESTORE}[words.action]
    with worker() as client:
        answer = client.ask(m.criu_req(type=kind, opts=opts))
    (words.directory / f"told-{words.action}").write_text("\n".join(client.told))
    if answer.success and words.pidfile:
        words.pidfile.write_text(str(answer.restore.pid))
    return 0 if answer.success else 1


if __name__ == "__main__":
    sys.exit(main())
