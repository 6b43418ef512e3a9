"""The messages and enums of the images and the RPC, by their names in the schema.

    from torpor.images import messages as m
    core = m.core_entry(tc=m.task_core_entry(task_state=1))
    core.tc.comm = "sh"

Each class is made when first asked for.  Their static types are in ``messages.pyi``; both come from ``schema/``.
"""

from __future__ import annotations

from torpor.images._registry import lookup


def __getattr__(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)
    found = globals()[name] = lookup(name)
    return found
