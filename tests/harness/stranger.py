"""A client of `criu service` that is somebody else: requests on standard input, answers on standard output.

    python harness/stranger.py ADDRESS DIRECTORY USER

It is root that starts it, for who else may not be able to come where the sources lie; it says `ready` once it is the
user with that number.  A request is a line of hexadecimal digits, a packet each; `-` alone ends a connection that was
kept open.  DIRECTORY is the client's descriptor 50, for requests that name one.  Each answer is a line of JSON: whether
it succeeded, the number and text of the error, the pid.
"""

import json
import os
import socket
import sys

from torpor.images import messages as m
from torpor.kernel.arch import nr
from torpor.kernel.syscall import syscall
from torpor.kernel.uapi.prctl import PR_SET_DUMPABLE

NUMBER = 50
_LIMIT_S = 120


def _answer(connection: socket.socket, packet: bytes) -> dict[str, object]:
    try:
        connection.send(packet)
        while True:
            data = connection.recv(1 << 16)
            if not data:
                return {"success": False, "text": "hung up"}
            found = m.criu_resp.FromString(data)
            if found.type != m.criu_req_type.NOTIFY:
                break
            connection.send(m.criu_req(type=m.criu_req_type.NOTIFY, notify_success=True).SerializeToString())
    except OSError as error:
        return {"success": False, "text": str(error)}
    return {
        "success": found.success,
        "errno": found.cr_errno,
        "text": found.cr_errmsg,
        "pid": found.restore.pid,
    }


def _become(user: int) -> None:
    m.criu_resp.FromString(
        m.criu_resp(type=m.criu_req_type.EMPTY, success=True).SerializeToString()
    )  # it is loaded now
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    # As a program that it has started itself.
    syscall("prctl(PR_SET_DUMPABLE)", nr.prctl, PR_SET_DUMPABLE, 1)
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def main() -> None:
    """Serve the test until its end of file."""
    address, directory, user = sys.argv[1:]
    _become(int(user))
    os.dup2(os.open(directory, os.O_RDONLY), NUMBER)
    for line in sys.stdin:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(_LIMIT_S)
            try:
                connection.connect(address)
                found = _answer(connection, bytes.fromhex(line.strip()))
            except OSError as error:
                found = {"success": False, "text": f"cannot connect: {error}"}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
