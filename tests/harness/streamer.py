"""An image streamer as ``criu --stream`` knows it, written by its protocol and not with our store's code."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_LIMIT_S = 120


class Streamer:
    """Listens in *directory* for one dump, whose images it keeps in ``images``; with *serves* it gives them instead.

    *most* bytes of one image are read, and then it goes away.  No page is read before *until* returns: whoever dumps
    waits with all that a pipe does not hold.  A context manager that waits for its end.
    """

    def __init__(
        self,
        directory: Path,
        images: dict[str, bytes],
        *,
        serves: bool = False,
        most: int | None = None,
        until: Callable[[], None] = lambda: None,
    ) -> None:
        self.images, self.asked = images, list[str]()
        self._most, self._until = most, until
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._path = directory / ("streamer-serve.sock" if serves else "streamer-capture.sock")
        self._listener.bind(str(self._path))
        self._listener.listen(1)
        self._listener.settimeout(_LIMIT_S)
        self._readers: list[threading.Thread] = []
        work = self._serve if serves else self._capture
        self._work = threading.Thread(target=self._accept, args=(work,), daemon=True)
        self._work.start()

    def _accept(self, work: Callable[[socket.socket], None]) -> None:
        with suppress(OSError):
            with self._listener:
                client, _ = self._listener.accept()
            self._path.unlink()
            client.settimeout(_LIMIT_S)
            with client:
                work(client)
                for reader in self._readers:
                    reader.join()

    def _capture(self, client: socket.socket) -> None:
        while name := _name(client):
            self.asked.append(name)
            (pipe,) = _fds(client)
            if self._most is not None and name.startswith("pages-"):
                os.read(pipe, self._most)
                os.close(pipe)
                return
            reader = threading.Thread(target=self._read, args=(name, pipe))
            reader.start()
            self._readers.append(reader)

    def _read(self, name: str, pipe: int) -> None:
        with open(pipe, "rb") as stream:
            if name.startswith("pages-"):
                self._until()
            self.images[name] = stream.read()

    def _serve(self, client: socket.socket) -> None:
        while name := _name(client):
            self.asked.append(name)
            is_there = name in self.images
            client.sendall(struct.pack("<I", 2) + bytes([8, is_there]))
            if is_there:
                (pipe,) = _fds(client)
                content = self.images.pop(name)
                with suppress(BrokenPipeError), open(pipe, "wb") as stream:
                    stream.write(content[: self._most])
                    if self._most is not None and name.startswith("pages-"):
                        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
        self.wait()

    def wait(self) -> None:
        """Until whoever came has gone, and all that he sent is here."""
        self._work.join()
        self._path.unlink(missing_ok=True)


def _name(client: socket.socket) -> str:
    """The next image that is named; "" at the end."""
    head = client.recv(4, socket.MSG_WAITALL)
    if len(head) < 4:
        return ""
    (length,) = struct.unpack("<I", head)
    message = client.recv(length, socket.MSG_WAITALL)
    assert message[0] == 0x0A
    return message[2 if len(message) < 130 else 3 :].decode()


def _fds(client: socket.socket) -> list[int]:
    _, fds, _, _ = socket.recv_fds(client, 1, 1)
    return fds
