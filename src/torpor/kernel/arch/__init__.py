"""The machine we run on.  An architecture is a register layout, one loop of machine code and a few constants.

``nr``, ``regs``, ``loop``, ``sigframe`` and the others are those of this machine.
"""

from __future__ import annotations

import os

_KNOWN = ("x86_64", "aarch64")
MACHINE = os.uname().machine
IS_AARCH64 = MACHINE == "aarch64"

if MACHINE not in _KNOWN:  # pragma: no cover - no such machine to run it on
    from torpor.base.errors import TorporError

    raise TorporError(f"the architecture {MACHINE} is not supported yet", hint=f"{' and '.join(_KNOWN)} are")
