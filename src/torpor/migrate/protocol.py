"""The words that both sides know, and for how long one waits for the other.

    source                  destination
    hello                                        versions
                            hello
    offer                                        what it is, and what it needs
                            accept, refuse
    connect                                      to a port there, so often, or not at all
    pages                                        memory may come when it runs there
                            pages                by which port
    connect                                      to that, or not
    images, cancel                               a round, or the last: then it is about to be stopped
    (data)                                       its images, one tar archive
                            taken                of a round: it lies where the restore needs it
                            ready                all is rebuilt, and nothing of it runs
    go                                           it is dead here
                            runs

Either may say ``failed`` in the place of any of these, before ``go``.
"""

from __future__ import annotations

from torpor.base.errors import MigrationError
from torpor.migrate.link import Message

VERSION = 3
HELLO, OFFER, ACCEPT, REFUSE, CONNECT, PAGES, CANCEL, IMAGES, TAKEN, READY, GO, RUNS = (
    "hello", "offer", "accept", "refuse", "connect", "pages", "cancel", "images", "taken", "ready", "go", "runs",
)  # fmt: skip
#: So long is "go" waited for by who is ready.
GO_WITHIN_S = 60.0
MAX_PROBLEMS = 64


def check(hello: Message, peer: str) -> None:
    """MigrationError where the other side speaks another version of this."""
    theirs = hello.number("protocol")
    if theirs != VERSION:
        raise MigrationError(
            f"{peer} has torpor {hello.text('torpor', 'of another version')}, which migrates in another way",
            hint="install the same version on both hosts",
        )
