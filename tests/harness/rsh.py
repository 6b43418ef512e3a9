"""A remote shell without secrets, over a network that tests may cut: what ssh is for ``torpor migrate``, and no more.

    rsh.py serve ADDRESS PORT          run what connections ask for, in a session of our own
    rsh.py connect ADDRESS PORT LINE   have LINE run there; our standard input and output are its

Either side takes the other for gone after a few seconds without an answer, as ssh and sshd do when they are told to.
"""

import os
import select
import signal
import socket
import subprocess
import sys

_GONE_S = 3


def _settle(link: socket.socket) -> None:
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, 1),
        (socket.TCP_KEEPINTVL, 1),
        (socket.TCP_KEEPCNT, _GONE_S),
        (socket.TCP_USER_TIMEOUT, _GONE_S * 1000),
        (socket.TCP_NODELAY, 1),
    ):
        link.setsockopt(socket.IPPROTO_TCP, option, value)


def serve(address: str, port: int) -> None:
    """For ever."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.create_server((address, port)) as server:
        print("ready", flush=True)
        while True:
            link, _ = server.accept()
            if os.fork() == 0:
                _run(link)
            link.close()


def _run(link: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _settle(link)
    line = b""
    while not line.endswith(b"\0") and (byte := link.recv(1)):
        line += byte
    with subprocess.Popen(["sh", "-c", line[:-1].decode()], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as inner:
        assert inner.stdin is not None and inner.stdout is not None
        # As sshd: whoever has gone leaves a command whose standard input has ended.
        _carry(link, inner.stdout.fileno(), inner.stdin.fileno())
        inner.stdin.close()
        inner.stdout.close()
    os._exit(0)


def connect(address: str, port: int, line: str) -> None:
    """Until the command there has ended, or nobody is there any more."""
    with socket.create_connection((address, port), 5) as link:
        link.settimeout(None)
        _settle(link)
        link.sendall(line.encode() + b"\0")
        _carry(link, 0, 1)


def _carry(link: socket.socket, reader: int, writer: int) -> None:
    """What comes from either side to the other, until one of them has ended."""
    try:
        while True:
            for end in select.select([link.fileno(), reader], [], [])[0]:
                if end == link.fileno():
                    data = link.recv(1 << 16)
                    view = memoryview(data)
                    while view:
                        view = view[os.write(writer, view) :]
                else:
                    data = os.read(reader, 1 << 16)
                    link.sendall(data)
                if not data:
                    return
    except OSError:
        return


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        connect(sys.argv[2], int(sys.argv[3]), sys.argv[4])
