"""Names as images have them: the bytes of the kernel, whatever the locale of whoever calls us."""

from __future__ import annotations

import os
import sys


def insist() -> None:
    """Where a command begins: begin anew if Python takes names for anything but UTF-8, as in an ISO-8859 locale.

    Names would be other ones in the images, which are then restored by the same locale only.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode and sys.executable:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
