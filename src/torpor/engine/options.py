"""What a dump or a restore may be told; the commands and the API fill these in, objects get only the part they need."""

from __future__ import annotations

from dataclasses import dataclass, field

from torpor.objects.files.model import FilePolicy


@dataclass(frozen=True, slots=True)
class DumpOptions:
    """``leave_running`` and ``leave_stopped`` say what becomes of the tree; without either it is killed."""

    leave_running: bool = False
    leave_stopped: bool = False
    files: FilePolicy = field(default_factory=FilePolicy)


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """``sibling``: the restored root becomes a child of our parent.  ``leave_stopped``: it stays stopped."""

    sibling: bool = False
    leave_stopped: bool = False
    files: FilePolicy = field(default_factory=FilePolicy)
