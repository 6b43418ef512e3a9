"""Numbers of tasks that may not mix, though both are int: mypy tells one from the other, and nothing does at run time.

A task of a tree in a pid namespace of its own has two numbers, and where it has none the two are the same, so that a
swap is seen in a container only.
"""

from __future__ import annotations

from torpor.base.typed import NewType

#: Of a process or a thread, as we see it: what /proc, ptrace, kill and pidfd_open take here.
Pid = NewType("Pid", int)
#: Of the same, as the tree sees it: what images hold.
TreePid = NewType("TreePid", int)
