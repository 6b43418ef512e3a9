"""What is saved and restored around a reboot, on a machine that is only a dictionary: order, limits, deaths."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from torpor.base.errors import EngineError, TorporError, UsageError
from torpor.containers.commands import TookTooLongError
from torpor.containers.reboot import facts, ledger, marks, planning, saving, stored, waking
from torpor.containers.reboot.ledger import Entry


class Killed(BaseException):
    """We are, at once."""


@dataclass
class World:
    """What runs and what sleeps, and each command that changed it."""

    running: set[str] = field(default_factory=set)
    asleep: dict[str, int] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    refused: dict[str, TorporError] = field(default_factory=dict)
    limits: list[float | None] = field(default_factory=list)

    def fact(self, entry: Entry) -> facts.Fact:
        if entry.target in self.running:
            return facts.Fact(facts.RUNS)
        if entry.target in self.asleep:
            return facts.Fact(facts.ASLEEP, self.asleep[entry.target])
        return facts.Fact(facts.ENDED)

    def run(self, words: Sequence[str], timeout_s: float | None) -> str:
        verb, target = words[0], words[1].partition("@")[0]
        self.limits.append(timeout_s)
        if error := self.refused.get(f"{verb} {target}"):
            raise error
        if verb == "checkpoint":
            self.running.remove(target)
            self.asleep[target] = 7
        if verb == "restore":
            assert words[1].endswith("@7")
            del self.asleep[target]
            self.running.add(target)
        self.done.append(f"{verb} {target}")
        return ""

    def reboot(self) -> None:
        self.running.clear()


@pytest.fixture
def world(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path))
    # They are said to others from here on, and not taken back.
    monkeypatch.setenv("TORPOR_LIST_TIMEOUT", "20")
    monkeypatch.setattr(waking, "_OF_SERVICES", ())
    monkeypatch.setattr(facts, "of", made.fact)
    monkeypatch.setattr(planning, "plan", lambda: [plan_of(mark, made) for mark in reversed(marks.all_marks())])
    return made


def plan_of(mark: marks.Mark, world: World) -> Entry:
    state = ledger.WAITING if mark.target in world.running else ledger.IDLE
    return Entry(mark.target, state=state, after=mark.after, timeout_s=mark.timeout_s, options=mark.options)


def silent(_: Entry) -> None:
    """Nobody is told."""


def states() -> dict[str, str]:
    return {entry.target: entry.state for entry in ledger.load().entries}


def mark(world: World, *targets: str) -> None:
    marks.add([marks.Mark(target) for target in targets])
    world.running.update(targets)


def test_each_is_restored_once(world: World) -> None:
    mark(world, "job:a", "job:b")
    saving.save(world.run, silent, 100)
    world.reboot()
    waking.wake(world.run, silent)
    done = ["checkpoint job:b", "checkpoint job:a", "restore job:a", "restore job:b"]
    assert world.done == done and states() == {"job:a": "restored", "job:b": "restored"}
    waking.wake(world.run, silent)
    assert world.done == done


def _dies_at(number: int, writes: Callable[[str, dict[str, object]], None], *, after: bool) -> object:
    counted = [0]

    def write(name: str, told: dict[str, object]) -> None:
        counted[0] += 1
        if counted[0] == number and not after:
            raise Killed
        writes(name, told)
        if counted[0] == number:
            raise Killed

    return write


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", range(1, 7))
def test_death_at_each_step_of_the_save_loses_nothing_that_sleeps(
    world: World, monkeypatch: pytest.MonkeyPatch, number: int, after: bool
) -> None:
    mark(world, "job:a", "job:b")
    was = stored.write
    monkeypatch.setattr(stored, "write", _dies_at(number, was, after=after))
    with suppress(Killed):
        saving.save(world.run, silent, 100)
    monkeypatch.setattr(stored, "write", was)
    world.reboot()
    asleep = set(world.asleep)
    if number % 2:
        # A second save before the restore: what sleeps is not forgotten by that.
        saving.save(world.run, silent, 100)
    made = waking.wake(world.run, silent)
    assert world.running == asleep and not world.asleep
    told = {entry.target: entry for entry in made.entries}
    for target in {"job:a", "job:b"} - asleep:
        # Where not even the list was written, there is nothing to be said.
        entry = told.get(target)
        assert entry is None or entry.state == ledger.IDLE or (entry.state == ledger.LEFT and entry.why and entry.hint)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", range(1, 7))
def test_death_at_each_step_of_the_restore_is_gone_on_with(
    world: World, monkeypatch: pytest.MonkeyPatch, number: int, after: bool
) -> None:
    mark(world, "job:a", "job:b")
    saving.save(world.run, silent, 100)
    world.reboot()
    was = stored.write
    monkeypatch.setattr(stored, "write", _dies_at(number, was, after=after))
    with suppress(Killed):
        waking.wake(world.run, silent)
    monkeypatch.setattr(stored, "write", was)
    waking.wake(world.run, silent)
    assert world.running == {"job:a", "job:b"}
    assert sorted(world.done) == ["checkpoint job:a", "checkpoint job:b", "restore job:a", "restore job:b"]
    assert set(states().values()) == {"restored"}


def test_what_cannot_be_saved_stops_nobody_else(world: World) -> None:
    mark(world, "job:a", "job:b", "job:c")
    world.refused["checkpoint job:b"] = EngineError("a connection is open", hint="--tcp-established")
    made = saving.save(world.run, silent, 100)
    assert states() == {"job:a": "saved", "job:b": "left", "job:c": "saved"}
    assert [(entry.why, entry.hint) for entry in made.missing] == [("a connection is open", "--tcp-established")]
    world.reboot()
    made = waking.wake(world.run, silent)
    assert world.running == {"job:a", "job:c"} and [entry.target for entry in made.missing] == ["job:b"]
    assert not made.is_seen


def test_what_is_said_to_have_failed_and_sleeps_is_saved(world: World) -> None:
    """The command's time was over when all was done."""
    mark(world, "job:a")

    def run(words: Sequence[str], timeout_s: float | None) -> str:
        world.run(words, timeout_s)
        raise TookTooLongError("torpor does not answer")

    saving.save(run, silent, 100)
    assert states() == {"job:a": "saved"}


def test_limits_of_each_and_of_all(world: World) -> None:
    marks.add([marks.Mark("job:a"), marks.Mark("job:b", timeout_s=5), marks.Mark("job:c")])
    world.running.update(("job:a", "job:b", "job:c"))
    world.refused["checkpoint job:b"] = TookTooLongError("torpor does not answer")
    made = saving.save(world.run, silent, 1000)
    assert world.limits[1] == 5 and all(900 < limit <= 1000 for limit in (world.limits[0], world.limits[2]) if limit)
    assert [entry.why for entry in made.missing] == ["it took longer than 5 s"]
    assert saving.save(world.run, silent, 0).missing[0].why == "no time was left for it"


def test_what_could_not_be_restored_sleeps_on_and_is_tried_again(world: World) -> None:
    mark(world, "job:a", "job:b")
    saving.save(world.run, silent, 100)
    world.reboot()
    world.refused["restore job:a"] = EngineError("pid 7 is taken", hint="end it")
    made = waking.wake(world.run, silent)
    assert states() == {"job:a": "failed", "job:b": "restored"} and world.running == {"job:b"}
    assert made.missing[0].hint == "end it; then torpor survive --restore"
    # At the next shutdown it is not running, and sleeps on through that as well.
    saving.save(world.run, silent, 100)
    assert states() == {"job:a": "failed", "job:b": "saved"}
    world.reboot()
    del world.refused["restore job:a"]
    made = waking.wake(world.run, silent)
    assert world.running == {"job:a", "job:b"} and made.missing == [] and made.is_seen


def test_what_has_ended_or_was_started_anew_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    mark(world, "job:a", "job:b")
    saving.save(world.run, silent, 100)
    world.reboot()
    found = {"job:a": facts.Fact(facts.ANEW), "job:b": facts.Fact(facts.ABSENT)}
    monkeypatch.setattr(facts, "of", lambda entry: found[entry.target])
    made = waking.wake(world.run, silent)
    assert [entry.state for entry in made.missing] == ["gone", "gone"]
    assert "anew" in made.missing[1].why and "no such" in made.missing[0].why
    assert "restore" not in " ".join(world.done)


def test_a_podman_that_says_nothing_keeps_nobody_from_anything(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither before a step nor after it: what is true is asked again at boot, and until it is known."""
    mark(world, "job:a", "podman:b", "job:c")
    was, is_silent = facts.of, [True]

    def of(entry: Entry) -> facts.Fact:
        silent = is_silent[0] and entry.kind == "podman"
        return facts.Fact(facts.UNKNOWN, why="podman does not answer") if silent else was(entry)

    def run(words: Sequence[str], timeout_s: float | None) -> str:
        return world.run([words[0], f"{words[1]}@7" if words[1].startswith("podman") else words[1]], timeout_s)

    monkeypatch.setattr(facts, "of", of)
    monkeypatch.setattr(facts, "forget_checkpoint", lambda entry: None)
    saving.save(run, silent, 100)
    assert states() == {"job:a": "saved", "podman:b": "saving", "job:c": "saved"}
    world.reboot()
    made = waking.wake(run, silent)
    assert states() == {"job:a": "restored", "podman:b": "failed", "job:c": "restored"}
    assert "podman does not answer" in made.missing[0].why
    is_silent[0] = False
    waking.wake(run, silent)
    assert world.running == {"job:a", "podman:b", "job:c"} and set(states().values()) == {"restored"}


def test_jobs_are_planned_where_podman_fails(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> dict[str, dict[str, object]]:
        raise EngineError("podman does not answer")

    monkeypatch.setenv("TORPOR_STATE", str(tmp_path))
    monkeypatch.setattr(planning, "_containers", fail)
    marks.add([marks.Mark("podman:web"), marks.Mark("job:one")])
    planned = {entry.target: (entry.state, entry.why) for entry in planning.plan()}
    assert planned == {"podman:web": ("left", "podman does not answer"), "job:one": ("idle", "")}


def test_marks_may_not_be_after_each_other(world: World) -> None:
    marks.add([marks.Mark("job:a", after=("job:b",))])
    with pytest.raises(UsageError, match="each would come after the other"):
        marks.add([marks.Mark("job:b", after=("job:a",))])
    assert marks.remove(["job:b", "job:a"]) == ["job:a"] and marks.all_marks() == []


def test_one_at_a_time(world: World) -> None:
    with stored.held("ledger"), pytest.raises(TorporError, match="somebody else is at work"):
        waking.wake(world.run, silent)


def _container(name: str, **told: object) -> dict[str, object]:
    labels = told.pop("labels", {})
    return {
        "Id": name * 8, "Name": name, "State": {"Status": "running"}, "Config": {"Labels": labels}, **told
    }  # fmt: skip


def test_podmans_dependencies_are_kept(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """`web` needs `db` by way of `infra`, which nobody has marked: it is started for it."""
    found = [
        _container("db"),
        _container("infra", Dependencies=["db" * 8]),
        _container("web", Dependencies=["infra" * 8], labels={marks.LABEL: "true"}),
        _container("once", HostConfig={"AutoRemove": True}),
        _container("unit", labels={"PODMAN_SYSTEMD_UNIT": "unit.service"}),
    ]
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path))
    monkeypatch.setattr(planning, "_containers", lambda: {str(told["Id"]): told for told in found})
    # A mark that contradicts Podman gives way.
    marks.add([marks.Mark("podman:db", after=("podman:web",)), marks.Mark("podman:once"), marks.Mark("podman:unit")])
    planned = {entry.target: entry for entry in planning.plan()}
    order = [target for target in planned if target in ("podman:db", "podman:web")]
    assert order == ["podman:web", "podman:db"]
    assert planned["podman:web"].starts == ("infra" * 8,)
    assert [planned[name].state for name in ("podman:once", "podman:unit")] == ["left", "left"]
    assert "--rm" in planned["podman:once"].why and "unit.service" in planned["podman:unit"].why


def test_what_starts_others_is_restored_last(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod's first container, started anew for `member`, takes whichever address is free: `web` asks for its own."""
    found = [
        _container("infra"),
        _container("member", Dependencies=["infra" * 8]),
        _container("web"),
        _container("zoo", Dependencies=["web" * 8]),
    ]
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path))
    monkeypatch.setattr(planning, "_containers", lambda: {str(told["Id"]): told for told in found})
    marks.add([marks.Mark(f"podman:{name}") for name in ("member", "web", "zoo")])
    assert [entry.name for entry in planning.plan()] == ["member", "zoo", "web"]
