"""Starts a command as the first process of new namespaces, writes its pid, and ends.

usage: fresh.py user|none VARIABLE LOG COMMAND...

user: in a user namespace of its own as well, whose ids are mapped as below.  VARIABLE is one of our environment that
the command is to have.  This is run as a process of its own, so that whoever tests keeps its own namespaces.
"""

import os
import signal
import socket
import sys

from torpor.base.ids import Pid
from torpor.engine.jobs.start import make_mounts
from torpor.kernel import namespaces as ns
from torpor.kernel.idmap import Extent, IdMap, IdMaps, write_idmaps
from torpor.kernel.netdevice import loopback_up

#: Each with a seam, and such that no number means the same inside and outside.
MAPS = IdMaps(
    IdMap((Extent(0, 100000, 1000), Extent(1000, 300000, 1000000))),
    IdMap((Extent(0, 200000, 500000), Extent(500000, 1900000, 500000))),
)
#: Who is root inside.
ROOT = MAPS.outside(0, 0)
_OTHERS = ns.CLONE_NEWPID | ns.CLONE_NEWNS | ns.CLONE_NEWUTS | ns.CLONE_NEWIPC | ns.CLONE_NEWNET


def _enter_user_namespace(helper: socket.socket) -> None:
    ns.unshare(ns.CLONE_NEWUSER)
    helper.sendall(b"u")
    helper.recv(1)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _become(variable: str, log: str, command: list[str]) -> None:
    os.setsid()
    socket.sethostname("fresh")
    make_mounts()
    loopback_up()
    log_fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    for number in (1, 2):
        os.dup2(log_fd, number)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.chdir("/")
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    os.execve(command[0], command, {name: os.environ[name] for name in ("PATH", "LC_ALL", variable)})


def main() -> int:
    """The pid as we see it, on standard output; an exit code that is not 0, and why on standard error."""
    has_user, variable, log, *command = sys.argv[1:]
    near, far = socket.socketpair()
    child = os.fork()
    if child:
        far.close()
        if has_user == "user" and near.recv(1) == b"u":
            write_idmaps(Pid(child), MAPS, setgroups=True)
            near.sendall(b"m")
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    near.close()
    if has_user == "user":
        _enter_user_namespace(far)
    ns.unshare(_OTHERS)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    first = os.fork()
    if first == 0:
        try:
            _become(variable, log, command)
        except OSError as error:
            os.write(writer, str(error).encode())
        os._exit(127)
    os.close(writer)
    with open(reader, encoding="utf-8") as stream:
        trouble = stream.read()
    print(trouble or first, flush=True)
    os._exit(1 if trouble else 0)


if __name__ == "__main__":
    sys.exit(main())
