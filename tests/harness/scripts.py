"""Small programs in Python that a test dumps, once they have said that they are where it wants them."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def awaited(
    text: str, *arguments: object, prefix: Sequence[str] = (), pass_fds: Sequence[int] = ()
) -> Iterator["subprocess.Popen[bytes]"]:
    """A session's leader that runs *text*, whose first argument is a descriptor to which it writes an x when ready.

    *prefix*: a command that becomes it; *pass_fds*: further descriptors that it gets.  It is killed at the end.
    """
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", text, str(writer), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(writer, *pass_fds),
        start_new_session=True,
    )
    os.close(writer)
    try:
        assert os.read(reader, 1) == b"x", "the program did not come up"
        yield process
    finally:
        os.close(reader)
        process.kill()
        process.wait()
