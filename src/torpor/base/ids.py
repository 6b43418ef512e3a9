"""Numbers that may not be mixed.

``Pid`` is a process or thread id as *we* (the dumper's pid namespace) see it; ``NsPid`` as the target sees it, and as
images hold it.  ``Fd`` is a descriptor here, ``RemoteFd`` a descriptor number in the target.  ``Addr`` is an address
in the target's memory.
"""

from __future__ import annotations

from torpor.base.typed import NewType

Pid = NewType("Pid", int)
NsPid = NewType("NsPid", int)
RemoteFd = NewType("RemoteFd", int)
Addr = NewType("Addr", int)
