"""Sends numbers over one connection for as long as numbers come in over it, and says whether those came in order."""

import socket
import struct
import threading
import time

BLOCK = 500


def send(connection: socket.socket, ended: threading.Event) -> None:
    """Numbers from 0 on, until the other side has sent its last."""
    number = 0
    while not ended.is_set():
        connection.sendall(struct.pack(f"<{BLOCK}Q", *range(number, number + BLOCK)))
        number += BLOCK
        time.sleep(0.001)
    connection.shutdown(socket.SHUT_WR)


def receive(connection: socket.socket) -> int:
    """How many numbers came, which must be those from 0 on; negative: the first that was wrong."""
    expected, rest = 0, b""
    while part := connection.recv(65536):
        rest += part
        whole = len(rest) // 8
        for number in struct.unpack(f"<{whole}Q", rest[: whole * 8]):
            if number != expected:
                return -1 - expected
            expected += 1
        rest = rest[whole * 8 :]
    return expected


if __name__ == "__main__":
    with socket.create_server(("", 8080)) as server:
        connection, _ = server.accept()
    ended = threading.Event()
    sender = threading.Thread(target=send, args=(connection, ended))
    sender.start()
    count = receive(connection)
    ended.set()
    sender.join()
    print(f"received {count}", flush=True)
