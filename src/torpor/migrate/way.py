"""The way to another host: who it is, and a command there whose standard input and output are a link."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from torpor.base.errors import MigrationError, UsageError
from torpor.migrate.link import Link, LinkLostError, own_socket

#: Instead of ssh, as RSYNC_RSH is for rsync: a command that is given a host and a command line.
RSH_VARIABLE = "TORPOR_RSH"
_DESTINATION = re.compile(
    r"(?:ssh://)?(?:(?P<user>[^@/:\s]+)@)?(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^@/:\s\[\]-][^@/:\s\[\]]*)(?::(?P<port>\d+))?/?"
)
#: That a cable has been cut is known after so many seconds without an answer.
_SSH_OPTIONS = ("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3")
_END_S = 5.0


@dataclass(frozen=True, slots=True)
class Destination:
    """A host as a user names it."""

    host: str
    user: str = ""
    port: int = 0

    def __str__(self) -> str:
        return self.host


def destination(word: str) -> Destination:
    """The host that ``[ssh://][USER@]HOST[:PORT]`` names; port 0 is ssh's own.  UsageError."""
    found = _DESTINATION.fullmatch(word)
    if found is None or (found["user"] or "").startswith("-"):
        raise UsageError(f"{word!r} names no host", hint="[ssh://][USER@]HOST[:PORT]")
    port = int(found["port"] or 0)
    if port > 65535:
        raise UsageError(f"{word}: there is no port {port}")
    return Destination(found["host"].strip("[]"), found["user"] or "", port)


def command_line(where: Destination, words: Sequence[str], rsh: str = "") -> list[str]:
    """What runs *words* on that host."""
    shell = shlex.split(rsh or os.environ.get(RSH_VARIABLE, "") or "ssh")
    if not shell:
        raise UsageError("--rsh names no command")
    options: list[str] = []
    if os.path.basename(shell[0]) == "ssh":
        options += _SSH_OPTIONS
    if where.port:
        options += ["-p", str(where.port)]
    if where.user:
        options += ["-l", where.user]
    return [*shell, *options, where.host, shlex.join(words)]


class Remote:
    """A command on another host, as long as a ``with`` lasts; ``link`` leads to it."""

    def __init__(self, where: Destination, words: Sequence[str], rsh: str = "") -> None:
        line = command_line(where, words, rsh)
        self._command = line[0]
        near, far = socket.socketpair()
        with far:
            try:
                # Ctrl-C is for us, who say what becomes of the other side.
                before = signal.signal(signal.SIGINT, signal.SIG_IGN)
                try:
                    self._process = subprocess.Popen(line, stdin=far.fileno(), stdout=far.fileno())
                finally:
                    signal.signal(signal.SIGINT, before)
            except OSError as error:
                near.close()
                raise MigrationError(f"{line[0]} cannot be run: {error.strerror}") from None
        self.link: Link = own_socket(near, str(where))

    def explain(self, error: LinkLostError) -> None:
        """Add to *error* how the command has ended, if it has."""
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return
        if code:
            error.add_note(f"{os.path.basename(self._command)} ended with {code}")

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self.link.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
