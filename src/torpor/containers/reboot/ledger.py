"""What has been done for a reboot so far: one line for each job and container, written down before and after each step.

    waiting   its turn has not come             saved      it sleeps in a checkpoint
    saving    it is being checkpointed          restoring  it is being restored
    idle      it did not run                    restored   it runs again
    left      it could not be checkpointed      failed     it sleeps in its checkpoint, and could not be restored
    gone      it does not sleep any more, and was not restored by us

Whoever dies leaves ``saving`` or ``restoring``; what is true then is asked of the job's record, or of Podman.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from torpor.base.errors import TorporError
from torpor.containers.reboot import stored

WAITING, SAVING, SAVED, LEFT, IDLE = "waiting", "saving", "saved", "left", "idle"
RESTORING, RESTORED, FAILED, GONE = "restoring", "restored", "failed", "gone"
#: What is to be restored yet, or again.
PENDING = frozenset({SAVED, RESTORING, FAILED})
#: What did not make it.
MISSING = frozenset({LEFT, FAILED, GONE})
_FILE = "ledger.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """``target`` is KIND:NAME, ``id`` a container's; ``checkpoint`` the number of a job's.

    ``after``: targets that are restored before it; ``starts``: containers that it needs and that nobody has marked.
    ``shares``: pids of containers that it may have namespaces of, when it was saved, each with a colon and the id.
    ``why`` and ``hint`` are of what went wrong; ``began`` is when its checkpoint was.
    """

    target: str
    id: str = ""
    state: str = WAITING
    why: str = ""
    hint: str = ""
    checkpoint: int = 0
    began: float = 0.0
    seconds: float = 0.0
    timeout_s: float = 0.0
    after: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    shares: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """What it is, ``job`` or ``podman``: the first part of ``target``."""
        return self.target.partition(":")[0]

    @property
    def name(self) -> str:
        """What it is called: ``target`` without the kind."""
        return self.target.partition(":")[2]


@dataclass(slots=True)
class Ledger:
    """All entries in the order in which they are saved; ``kernel`` is the one that they were saved under.

    ``is_seen``: its user has been told what did not make it.
    """

    saved_at: float = 0.0
    kernel: str = ""
    restored_at: float = 0.0
    restored_under: str = ""
    is_seen: bool = True
    entries: list[Entry] = field(default_factory=list)

    def update(self, entry: Entry, state: str, **changed: object) -> Entry:
        """The entry in another state, on the disk."""
        new = replace(entry, **{"why": "", "hint": "", **changed, "state": state})  # type: ignore[arg-type]
        self.entries = [new if each.target == new.target else each for each in self.entries]
        self.write()
        return new

    def write(self) -> None:
        """Exchange the file for one with these entries; it is on the disk when this returns.  OSError."""
        stored.write(_FILE, asdict(self))

    @property
    def missing(self) -> list[Entry]:
        """What did not make it."""
        return [entry for entry in self.entries if entry.state in MISSING]

    @property
    def pending(self) -> list[Entry]:
        """What is to be restored, in the order in which it is."""
        return [entry for entry in reversed(self.entries) if entry.state in PENDING]


def load() -> Ledger:
    """The last one; an empty one if there is none.  TorporError if it makes no sense."""
    told = stored.read(_FILE)
    if not told:
        return Ledger()
    try:
        made = Ledger(**{each.name: told[each.name] for each in fields(Ledger)})  # type: ignore[arg-type]
        made.entries = [_entry(entry) for entry in made.entries]  # type: ignore[arg-type]
    except (LookupError, TypeError, AttributeError) as error:
        raise TorporError(f"{stored.directory() / _FILE} makes no sense: {error}") from None
    return made


def _entry(told: dict[str, object]) -> Entry:
    values = {each.name: told[each.name] for each in fields(Entry)}
    for name in ("after", "starts", "shares", "options"):
        values[name] = tuple(told[name])  # type: ignore[arg-type]
    return Entry(**values)  # type: ignore[arg-type]


def new(entries: list[Entry]) -> Ledger:
    """The one of a shutdown that begins now, on the disk."""
    made = Ledger(saved_at=time.time(), kernel=kernel_release(), is_seen=False, entries=entries)
    made.write()
    return made


def kernel_release() -> str:
    """Of the kernel that runs."""
    return Path("/proc/sys/kernel/osrelease").read_text(encoding="ascii").strip()
