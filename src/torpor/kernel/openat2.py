"""openat2(2): a name looked up below a directory that is its root, whatever links lie on the way."""

from __future__ import annotations

import errno
import os
import struct

from torpor.kernel.arch import nr
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.fcntl import O_PATH

RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10
_HOW = struct.Struct("=QQQ")
#: The only flags that go with O_PATH; open(2) ignores others, openat2(2) does not.
_WITH_O_PATH = O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATES = os.O_CREAT | os.O_TMPFILE & ~os.O_DIRECTORY
_TRIES = 32


def open_in_root(root_fd: int, path: str, flags: int, mode: int = 0, *, links: bool = True) -> int:
    """Open *path* as a process whose root directory is *root_fd* would; close-on-exec.  Without *links*, by none.

    Absolute links and ``..`` do not lead out of it.  OSError.  A name that passes through a magic link
    (``/proc/self/fd/3``) is refused with ELOOP by the kernel.
    """
    if flags & O_PATH:
        flags &= _WITH_O_PATH
    name = bytearray(os.fsencode(path or ".") + b"\0")
    resolve = RESOLVE_IN_ROOT if links else RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS
    how = bytearray(_HOW.pack(flags | os.O_CLOEXEC, mode if flags & _CREATES else 0, resolve))
    for _ in range(_TRIES):
        try:
            return syscall("openat2", nr.openat2, root_fd, address_of(name), address_of(how), _HOW.size)
        except OSError as error:
            # Something was renamed or mounted while ".." was being walked: openat2(2) says to try again.
            if error.errno != errno.EAGAIN:
                raise
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
