"""What is marked and here now, in the order in which it is put to sleep: what needs others first, these last.

Where it is free, what has others started for it is restored last: these take addresses that a container may have had.
Podman's containers need those of ``--requires`` and those whose namespaces they share, a pod's that of its first
container; a mark may name others (``--after``).  What a container needs and nobody has marked is started for it again.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from torpor.base import log
from torpor.base.errors import EngineError
from torpor.containers.commands import command_of, run
from torpor.containers.model import RUNNING
from torpor.containers.reboot.facts import ASK_TIMEOUT_S
from torpor.containers.reboot.ledger import IDLE, LEFT, WAITING, Entry
from torpor.containers.reboot.marks import LABEL, Mark, all_marks
from torpor.engine import jobs

_UNIT = "PODMAN_SYSTEMD_UNIT"


def plan() -> list[Entry]:
    """One entry for everything marked; where Podman does not answer, its containers are LEFT, with what it said."""
    silent = ""
    try:
        containers = _containers()
    except (EngineError, ValueError, LookupError, TypeError) as error:
        silent, containers = str(error), {}
        log.warn(f"containers with the label {LABEL} are not known: {silent}")
    marks = {mark.target: mark for mark in all_marks()}
    for told in containers.values():
        target = f"podman:{told['Name']}"
        if _labels(told).get(LABEL) == "true" and target not in marks:
            marks[target] = Mark(target)
    by_name = {f"podman:{told['Name']}": told for told in containers.values()}
    running = {f"job:{job.name}" for job in jobs.list_jobs() if job.status == jobs.RUNNING}
    entries = {target: _entry(mark, by_name.get(target), running) for target, mark in marks.items()}
    if silent:
        entries |= {
            target: replace(entry, state=LEFT, why=silent, hint="podman ps")
            for target, entry in entries.items()
            if entry.kind == "podman"
        }
    needs = {target: _needs(told, containers) for target, told in by_name.items()}
    for target, entry in entries.items():
        reached = _reached(target, needs)
        starts = tuple(each for each in _in_order(reached, needs) if each not in entries)
        after = tuple(sorted({*entry.after, *(each for each in reached if each in entries)}))
        shares = [by_name[each] for each in needs.get(target, ())]
        entries[target] = replace(
            entry,
            after=after,
            starts=tuple(str(by_name[each]["Id"]) for each in starts),
            shares=tuple(f"{_pid(each)}:{each['Id']}" for each in shares if _pid(each)),
        )
    return [entries[target] for target in reversed(_sorted(entries, needs))]


def is_marked_by_label(name: str) -> bool:
    """Whether the container called so has the label."""
    return any(told["Name"] == name and _labels(told).get(LABEL) == "true" for told in _containers().values())


def _containers() -> dict[str, dict[str, Any]]:
    """What ``podman inspect`` says of each container, by ids."""
    if not command_of("podman"):
        return {}
    ids = run("podman", "ps", "--all", "--quiet", "--no-trunc", timeout_s=ASK_TIMEOUT_S).split()
    if not ids:
        return {}
    found = json.loads(run("podman", "container", "inspect", *ids, timeout_s=ASK_TIMEOUT_S))
    return {str(told["Id"]): told for told in found}


def _labels(told: dict[str, Any]) -> dict[str, str]:
    return (told.get("Config") or {}).get("Labels") or {}


def _pid(told: dict[str, Any]) -> int:
    return int((told.get("State") or {}).get("Pid") or 0)


def _needs(told: dict[str, Any], containers: dict[str, dict[str, Any]]) -> list[str]:
    found = [containers[each]["Name"] for each in told.get("Dependencies") or () if each in containers]
    return [f"podman:{name}" for name in found]


def _reached(target: str, needs: dict[str, list[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [target]
    while waiting:
        for each in needs.get(waiting.pop(), ()):
            if each not in found:
                found.add(each)
                waiting.append(each)
    return found


def _in_order(targets: set[str], needs: dict[str, list[str]]) -> list[str]:
    graph = {target: [each for each in needs.get(target, ()) if each in targets] for target in sorted(targets)}
    return list(TopologicalSorter(graph).static_order())


def _sorted(entries: dict[str, Entry], needs: dict[str, list[str]]) -> list[str]:
    """What is restored first, first.  Where marks contradict Podman, Podman is right."""
    graph = {target: [each for each in entries[target].after if each in entries] for target in sorted(entries)}
    while True:
        sorter = TopologicalSorter(graph)
        try:
            sorter.prepare()
        except CycleError as error:
            around = error.args[1]
            # The first of two is one that the second is after.
            first, second = next(
                (first, second)
                for first, second in itertools.pairwise(around)
                if first not in _reached(second, needs)
            )  # fmt: skip
            graph[second].remove(first)
        else:
            return list(_one_by_one(sorter, entries))


def _one_by_one(sorter: TopologicalSorter[str], entries: dict[str, Entry]) -> Iterator[str]:
    ready: list[str] = []
    while sorter:
        ready = sorted([*ready, *sorter.get_ready()], key=lambda target: (bool(entries[target].starts), target))
        yield ready[0]
        sorter.done(ready.pop(0))


def _entry(mark: Mark, told: dict[str, Any] | None, running: set[str]) -> Entry:
    entry = Entry(mark.target, timeout_s=mark.timeout_s, after=mark.after, options=mark.options)
    if entry.kind == "job":
        return entry if mark.target in running else replace(entry, state=IDLE)
    if told is None or str((told.get("State") or {}).get("Status")) not in RUNNING:
        return replace(entry, state=IDLE)
    why, hint = _objection(told)
    return replace(entry, id=str(told["Id"]), state=LEFT if why else WAITING, why=why, hint=hint)


def _objection(told: dict[str, Any]) -> tuple[str, str]:
    """Why a container cannot outlive a reboot however well it is checkpointed, and what to do."""
    if unit := _labels(told).get(_UNIT):
        return (
            f"{unit} makes it anew at each start",
            "run it without a unit of its own: podman run -d, and torpor survive",
        )
    if (told.get("HostConfig") or {}).get("AutoRemove"):
        return "it was started with --rm, and podman removes it when it ends", "podman run without --rm"
    return "", ""
