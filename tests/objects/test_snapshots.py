"""Snapshots: memory is copied while its owner runs on, as it was when that was stopped."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import cgroups
from harness.events import ProcessWatch, wait_said
from harness.processes import kill_tree
from harness.streamer import Streamer
from harness.workload import Workload
from torpor.base.errors import RefusedError
from torpor.base.ids import Pid
from torpor.engine.dump import earlier as earlier_module
from torpor.engine.dump import snapshots
from torpor.engine.dump.run import dump
from torpor.engine.dump.snapshots import Snapshots
from torpor.engine.options import DumpOptions
from torpor.kernel.procfs import maps as maps_module
from torpor.kernel.procfs.maps import Vma
from torpor.kernel.procfs.stat import read_stat
from torpor.kernel.procfs.task import read_children
from torpor.objects.memory.headroom import Headroom
from torpor.objects.memory.space import Halved
from torpor.objects.model import DumpProcess
from torpor.objects.session import DumpContext

pytestmark = pytest.mark.root


ALWAYS = ("--snapshot", "always")


def go_on_from(workload: Workload, children: Sequence[int] | None = (), options: Sequence[str] = ALWAYS) -> str:
    """Dump it while it goes on, end it, restore it and have it check itself; the log of the dump.

    It has these *children* when the dump has ended.
    """
    workload.dump(leave_running=True, options=options)
    if children is not None:
        assert read_children(Pid(workload.pid)) == list(children)
    log = (workload.images / "dump.log").read_text()
    kill_tree(workload.mark, ProcessWatch(workload.pid))
    workload.reap()
    workload.restore()
    workload.expect_pass()
    return log


KINDS = (
    "dontfork", "wipeonfork", "locked", "transparent", "mergeable", "shared", "memfd", "file", "guarded", "unreadable",
    "zeroes",
)  # fmt: skip


@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_contents_are_those_of_one_instant(kind: str) -> None:
    with Workload.start("rewritten", ["32", *([kind] if kind != "none" else [])]) as workload:
        workload.wait_ready()
        log = go_on_from(workload)
        assert "a snapshot of" in log


def test_nobody_sees_it() -> None:
    with Workload.start("waiting") as workload:
        workload.wait_ready()
        pids = read_children(Pid(workload.pid))
        go_on_from(workload, pids)


@pytest.mark.parametrize("name", ["threads", "seccomp_filters", "family", "vectors"])
def test_programs_of_other_kinds(name: str) -> None:
    with Workload.start(name) as workload:
        workload.wait_ready()
        assert "a snapshot of" in go_on_from(workload, None)


def test_the_first_process_of_a_pid_namespace() -> None:
    with Workload.start_fresh("rewritten", ["16"]) as workload:
        workload.wait_ready()
        log = go_on_from(workload)
        assert "a snapshot of" in log


def test_where_it_cannot_fork_memory_is_copied_as_ever() -> None:
    with cgroups.group("pids") as place, Workload.start("rewritten", ["16"]) as workload:
        workload.wait_ready()
        (place / "pids.max").write_text("1")
        (place / "cgroup.procs").write_text(str(workload.pid))
        assert "cannot fork" in go_on_from(workload)


def test_a_small_process_is_not_worth_it() -> None:
    with Workload.start("eventfd") as workload:
        workload.wait_ready()
        workload.dump(leave_running=True)
        assert "a snapshot of" not in (workload.images / "dump.log").read_text()
        workload.expect_pass()


def test_a_large_one_is_by_default() -> None:
    with Workload.start("rewritten", ["64"]) as workload:
        workload.wait_ready()
        assert "a snapshot of" in go_on_from(workload, options=())


def test_whoever_is_told_sees_whole_images(tmp_path: Path) -> None:
    script = tmp_path / "hook"
    script.write_text(
        '#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != post-dump ] || ls "$CRTOOLS_IMAGE_DIR" > ' + f"{tmp_path}/seen\n"
    )
    script.chmod(0o755)
    with Workload.start("rewritten", ["16"]) as workload:
        workload.wait_ready()
        options = ["--snapshot", "always", "--action-script", str(script)]
        assert "a snapshot of" in go_on_from(workload, options=options)
        seen = (tmp_path / "seen").read_text().split()
        assert {"inventory.img", "pages-1.img"} <= set(seen)
        assert any(name.startswith("mm-") for name in seen)


@pytest.mark.parametrize(("n_mappings", "is_taken"), [("100", True), ("4000", False)])
def test_what_is_large_depends_on_the_mappings(n_mappings: str, is_taken: bool) -> None:
    """Where a process has many and little behind them, a fork costs more than it saves."""
    with Workload.start("rewritten", ["16", f"mappings-{n_mappings}"]) as workload:
        workload.wait_ready()
        assert ("a snapshot of" in go_on_from(workload, options=["--snapshot", "auto"])) is is_taken


@contextmanager
def _limited(room: int) -> Iterator[tuple[Workload, Path]]:
    """One that may have so much more memory than it has, and its control group; nobody is killed for that."""
    inside = ["sh", "-c", 'echo $$ > "$0" && exec "$@"']
    with (
        cgroups.group("memory") as place,
        Workload.start("rewritten", ["256"], prefix=[*inside, str(place / "cgroup.procs")]) as workload,
    ):
        workload.wait_ready()
        used = int((place / "memory.usage_in_bytes").read_text())
        (place / "memory.limit_in_bytes").write_text(str(used + room))
        yield workload, place
        assert not _is_out_of_memory(place)


def _is_out_of_memory(place: Path) -> bool:
    return "oom_kill 0" not in (place / "memory.oom_control").read_text()


def test_too_near_a_limit_on_memory_there_is_none() -> None:
    with _limited(8 << 20) as (workload, _):
        log = go_on_from(workload)
        assert "is near a limit" in log and "a snapshot of" not in log


@pytest.mark.alone
def test_what_writes_all_the_memory_there_is_meanwhile_is_stopped_again() -> None:
    """There is room for a snapshot, but not for all that is written while it is copied: nobody is killed.

    Where others keep us from looking for as long as that takes, somebody is.
    """
    images: dict[str, bytes] = {}
    with _limited(128 << 20) as (workload, place):
        log = workload.images / "dump.log"

        def wait_short() -> None:
            """Nothing is read of the snapshot before its process has used up the memory, however slow that is."""
            wait_said(log, "memory is short", lambda: _is_out_of_memory(place), 40)

        with Streamer(workload.images, images, until=wait_short):
            workload.dump(leave_running=True, options=(*ALWAYS, "--stream"))
        assert not _is_out_of_memory(place)
        assert "memory is short" in log.read_text() and "is near a limit" not in log.read_text()
        assert read_children(Pid(workload.pid)) == []
        kill_tree(workload.mark, ProcessWatch(workload.pid))
        workload.reap()
        with Streamer(workload.images, images, serves=True):
            workload.restore(options=("--stream",))
        workload.expect_pass()


@pytest.mark.parametrize("when", ["copy", "_copy", "_confirm", "late"])
def test_one_that_the_kernel_ends_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Before it is begun with, looked at, or copied; or when it has been copied, nobody knows how well."""

    def kill(snapshot: Snapshots) -> None:
        for taken in snapshot._taken.values():
            taken.snapshot.kill()

    def after(halved: Halved, pid: Pid, context: DumpContext) -> object:
        found = dump_contents(halved, pid, context)
        kill(caught[0])
        return found

    def note(snapshot: Snapshots) -> None:
        caught.append(snapshot)
        copy(snapshot)

    def early(snapshot: Snapshots, *taken: snapshots._Taken) -> object:
        kill(snapshot)
        return real(snapshot, *taken)

    caught: list[Snapshots] = []
    dump_contents, copy = Halved.dump_contents, Snapshots.copy
    if when == "late":
        monkeypatch.setattr(Snapshots, "copy", note)
        monkeypatch.setattr(Halved, "dump_contents", after)
    else:
        real = getattr(Snapshots, when)
        monkeypatch.setattr(Snapshots, when, early)
    with Workload.start("rewritten", ["16"]) as workload:
        workload.wait_ready()
        with pytest.raises(RefusedError, match="its snapshot has been ended"):
            dump(workload.pid, tmp_path, DumpOptions(leave_running=True, snapshot="auto"))
        assert read_children(Pid(workload.pid)) == []
        assert not (tmp_path / "inventory.img").exists()
        workload.expect_pass()


def test_it_is_watched_from_before_its_process_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What that writes uses up memory before anybody copies."""
    seen: list[str] = []
    watched, confirm = snapshots.watched, Snapshots._confirm

    @contextmanager
    def noted(process: DumpProcess, room: Headroom) -> Iterator[None]:
        with watched(process, room):
            seen.append(f"watched, {read_stat(process.pid).state}")
            yield
            seen.append("over")

    def look(snapshot: Snapshots, taken: snapshots._Taken) -> None:
        seen.append("looked")
        confirm(snapshot, taken)

    monkeypatch.setattr(snapshots, "watched", noted)
    monkeypatch.setattr(Snapshots, "_confirm", look)
    with Workload.start("rewritten", ["16"]) as workload:
        workload.wait_ready()
        dump(workload.pid, tmp_path, DumpOptions(leave_running=True, snapshot="auto"))
        assert seen == ["watched, t", "looked", "over"]
        workload.expect_pass()


def test_advice_that_changes_just_before_the_stop_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def take_flags(maps: list[Vma], earlier: list[Vma]) -> bool:
        found = maps_module.take_flags(maps, earlier)
        for vma in maps:
            vma.flags |= {"dd"}
        return found

    monkeypatch.setattr(earlier_module, "take_flags", take_flags)
    with Workload.start("rewritten", ["16"]) as workload:
        workload.wait_ready()
        with pytest.raises(RefusedError, match="changed the advice"):
            dump(workload.pid, tmp_path, DumpOptions(leave_running=True, snapshot="auto"))
        assert read_children(Pid(workload.pid)) == []
        assert not (tmp_path / "inventory.img").exists()
        workload.expect_pass()
