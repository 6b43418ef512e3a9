"""The machine we run on.  An architecture is a register layout, one loop of machine code and a few constants.

``nr``, ``regs``, ``loop`` and ``sigframe`` are those of this machine.
"""

from __future__ import annotations

import os

if os.uname().machine != "x86_64":  # pragma: no cover - no other machine to run it on yet
    from torpor.base.errors import TorporError

    raise TorporError(f"the architecture {os.uname().machine} is not supported yet", hint="x86_64 is")
