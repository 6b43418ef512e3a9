"""What a user wants to outlive a reboot: jobs and Podman's containers by their names, or containers by a label.

A name, not an id: a container that is made anew under its name is meant as well.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from torpor.base.errors import TorporError, UsageError
from torpor.base.typed import TYPE_CHECKING
from torpor.containers.reboot import stored

if TYPE_CHECKING:
    from torpor.containers.names import Target

#: A container with this label, "true", is marked as long as it has it.
LABEL = "io.torpor.survive-reboot"
#: What a checkpoint, and what a restore can be told of each.
CHECKPOINT_OPTIONS = ("tcp-established", "file-locks", "link-remap")
RESTORE_OPTIONS = ("tcp-established", "tcp-close", "file-locks")
OPTIONS = tuple(dict.fromkeys((*CHECKPOINT_OPTIONS, *RESTORE_OPTIONS)))
_FILE = "marks.json"
_KINDS = ("job", "podman")


@dataclass(frozen=True, slots=True)
class Mark:
    """``target`` is KIND:NAME.  It is saved before those of ``after`` are, and restored after them.

    ``timeout_s``: its own time limit, 0 if it has none; ``options``: of OPTIONS.
    """

    target: str
    after: tuple[str, ...] = ()
    timeout_s: float = 0.0
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called: ``target`` without the kind."""
        return self.target.partition(":")[2]


def all_marks() -> list[Mark]:
    """Those that were made by name."""
    found = stored.read(_FILE).get("marks")
    return [mark for entry in found if (mark := _mark(entry))] if isinstance(found, list) else []


def spelled(target: Target) -> str:
    """KIND:NAME of what can be marked; UsageError for anything else."""
    if target.job is not None:
        return f"job:{target.job.name}"
    if target.container is not None and target.container.engine == "podman":
        return target.container.label
    raise UsageError(
        f"{target.label} cannot be carried over a reboot",
        hint="jobs (torpor run) and podman's containers can",
    )


def add(marks: list[Mark]) -> None:
    """Mark these, in the place of earlier marks of the same targets; UsageError if they are after each other."""
    with stored.held("marks"):
        kept = {mark.target: mark for mark in all_marks()} | {mark.target: mark for mark in marks}
        _check_order(kept)
        _write(list(kept.values()))


def remove(targets: list[str]) -> list[str]:
    """Forget the marks of *targets*; those that there was one of."""
    with stored.held("marks"):
        found = all_marks()
        gone = [mark.target for mark in found if mark.target in targets]
        left = [
            replace(mark, after=tuple(each for each in mark.after if each not in targets))
            for mark in found
            if mark.target not in targets
        ]
        if gone:
            _write(left)
        return gone


def _write(marks: list[Mark]) -> None:
    stored.write(_FILE, {"marks": [asdict(mark) for mark in marks]})


def _check_order(marks: dict[str, Mark]) -> None:
    from graphlib import CycleError, TopologicalSorter

    try:
        TopologicalSorter({mark.target: mark.after for mark in marks.values()}).prepare()
    except CycleError as error:
        raise UsageError(f"each would come after the other: {', '.join(error.args[1])}") from None


def _mark(entry: object) -> Mark | None:
    try:
        assert isinstance(entry, dict)
        mark = Mark(
            str(entry["target"]), tuple(map(str, entry["after"])), float(entry["timeout_s"]),
            tuple(each for each in OPTIONS if each in entry["options"]),
        )  # fmt: skip
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        raise TorporError(f"{stored.directory() / _FILE}: makes no sense: {error}") from None
    return mark if mark.target.partition(":")[0] in _KINDS else None
