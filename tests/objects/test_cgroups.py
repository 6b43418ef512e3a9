"""Control groups: who is in which, what is below them, their limits, and where a restore puts all that."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import cgroups, engine
from harness.events import time_limit_s
from harness.processes import reap_session
from harness.skips import missing, need_mounted_root
from harness.workload import Workload

pytestmark = pytest.mark.root

MANAGED = ["--manage-cgroups"]
_HUGE = "hugetlb.2MB.max"


@pytest.fixture(params=["pids", ""], ids=["v1", "v2"])
def group(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A group of either version that takes tasks."""
    with cgroups.group(request.param) as path:
        yield path


def _is_gone(path: Path) -> bool:
    cgroups.remove(path)
    return not path.exists()


def test_a_task_and_its_groups_come_back(group: Path) -> None:
    inner, empty = group / "inner", group / "empty"
    inner.mkdir()
    empty.mkdir(0o700)
    with Workload.start("counter", prefix=cgroups.entering(inner)) as workload:
        workload.wait_ready()
        # What is above the task's own group is not the tree's: that is how CRIU has it, too.
        hierarchy = "" if (group / "cgroup.controllers").exists() else "pids"
        workload.dump(options=[*MANAGED, "--cgroup-root", f"{hierarchy}:/{group.name}"])
        assert _is_gone(group)
        workload.restore(options=MANAGED)
        assert cgroups.where(workload.pid, group) == f"/{group.name}/inner"
        assert empty.stat().st_mode & 0o777 == 0o700
        workload.expect_pass()


def test_groups_of_others_are_left_out(group: Path) -> None:
    """They are below what is carried, with tasks that are not the tree's: made again they would be in the way."""
    inner, theirs, empty = group / "inner", group / "theirs/below", group / "inner/empty"
    for path in (inner, empty, theirs):
        path.mkdir(parents=True)
    hierarchy = "" if (group / "cgroup.controllers").exists() else "pids"
    with Workload.start("counter", prefix=cgroups.entering(inner)) as workload:
        workload.wait_ready()
        with _sleeping(theirs):
            workload.dump(options=[*MANAGED, "--cgroup-root", f"{hierarchy}:/{group.name}"])
        assert _is_gone(group)
        workload.restore(options=MANAGED)
        assert empty.exists() and not (group / "theirs").exists()
        workload.expect_pass()


def test_a_group_that_others_have_entered_stays_as_it_is() -> None:
    """It was empty, and frozen, when the tree was dumped."""
    with cgroups.group("") as path:
        inner, theirs = path / "inner", path / "theirs"
        inner.mkdir()
        theirs.mkdir()
        (theirs / "cgroup.freeze").write_text("1")
        with Workload.start("counter", prefix=cgroups.entering(inner)) as workload:
            workload.wait_ready()
            workload.dump(options=[*MANAGED, "--cgroup-root", f":/{path.name}"])
            assert theirs.exists()
            (theirs / "cgroup.freeze").write_text("0")
            with _sleeping(theirs):
                workload.restore(options=["--manage-cgroups=full"])
                assert (theirs / "cgroup.freeze").read_text() == "0\n"
            workload.expect_pass()


@contextmanager
def _sleeping(group: Path) -> Iterator[None]:
    """Somebody in the *group*."""
    other = subprocess.Popen(["sleep", "1000"])
    try:
        (group / "cgroup.procs").write_text(str(other.pid))
        yield
    finally:
        other.kill()
        other.wait()


def test_limits_come_back() -> None:
    with (
        cgroups.group("pids") as pids,
        cgroups.group("memory") as memory,
        cgroups.group("cpu") as cpu,
        cgroups.group("devices") as devices,
    ):
        limits = {
            pids / "pids.max": "123", memory / "memory.limit_in_bytes": str(1 << 28),
            memory / "memory.soft_limit_in_bytes": str(1 << 27), cpu / "cpu.shares": "512",
            cpu / "cpu.cfs_quota_us": "50000",
        }  # fmt: skip
        for path, value in limits.items():
            path.write_text(value)
        (devices / "devices.deny").write_text("a")
        for line in ("c 1:3 rwm", "c 1:5 r"):
            (devices / "devices.allow").write_text(line)
        os.chown(pids / "cgroup.procs", 1000, 1000)
        with Workload.start("counter", prefix=cgroups.entering(pids, memory, cpu, devices)) as workload:
            workload.wait_ready()
            workload.dump(options=MANAGED)
            assert all(_is_gone(path) for path in (pids, memory, cpu, devices))
            workload.restore(options=MANAGED)
            assert {path: path.read_text().strip() for path in limits} == limits
            assert (devices / "devices.list").read_text().split("\n")[:2] == ["c 1:3 rwm", "c 1:5 r"]
            assert os.stat(pids / "cgroup.procs").st_uid == 1000
            workload.expect_pass()


def test_limits_of_v2_come_back() -> None:
    with cgroups.group("") as path:
        (path / "cgroup.max.depth").write_text("7")
        (path / "inner").mkdir()
        (path / "inner" / "cgroup.max.descendants").write_text("9")
        # As systemd delegates a group.
        delegated = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
        for name in delegated:
            os.chown(path / "inner" / name, 1000, 1000)
        with Workload.start("counter", prefix=cgroups.entering(path / "inner")) as workload:
            workload.wait_ready()
            options = [*MANAGED, "--cgroup-root", f":/{path.name}"]
            workload.dump(options=options)
            assert _is_gone(path)
            workload.restore(options=options)
            assert (path / "cgroup.max.depth").read_text() == "7\n"
            assert (path / "inner" / "cgroup.max.descendants").read_text() == "9\n"
            assert {os.stat(path / "inner" / name).st_uid for name in delegated} == {1000}
            workload.expect_pass()


def test_more_properties_can_be_named(tmp_path: Path) -> None:
    spec = tmp_path / "props"
    spec.write_text('"cpu":\n - "strategy": "replace"\n - "properties": ["cpu.cfs_burst_us"]\n')
    with cgroups.group("cpu") as path:
        if not (path / "cpu.cfs_burst_us").exists():
            missing("cpu.cfs_burst_us (CONFIG_CFS_BANDWIDTH)")
        (path / "cpu.cfs_quota_us").write_text("50000")
        (path / "cpu.cfs_burst_us").write_text("1000")
        (path / "cpu.shares").write_text("512")
        with Workload.start("counter", prefix=cgroups.entering(path)) as workload:
            workload.wait_ready()
            workload.dump(options=[*MANAGED, "--cgroup-props-file", str(spec), "--cgroup-dump-controller", "cpu"])
            path.rmdir()
            path.mkdir()
            (path / "cpu.cfs_quota_us").write_text("50000")
            workload.restore(options=["--manage-cgroups=full"])
            assert (path / "cpu.cfs_burst_us").read_text() == "1000\n"
            assert (path / "cpu.shares").read_text() == "1024\n", "only what is named is carried"
            workload.expect_pass()


@pytest.mark.parametrize("spec", ["cpu", None], ids=["another form", "no file"])
def test_properties_that_cannot_be_read_are_refused_before_the_freeze(spec: str | None, tmp_path: Path) -> None:
    path = tmp_path / "props"
    if spec is not None:
        path.write_text(spec)
    with Workload.start("counter") as workload:
        workload.wait_ready()
        with pytest.raises(engine.EngineError, match=r"properties|--cgroup-props-file") as failed:
            engine.dump(workload.pid, workload.images, options=["--cgroup-props-file", str(path)])
        assert failed.value.returncode == 2
        workload.expect_pass()


def _threads(workload: Workload) -> list[int]:
    """The main one first: after the highest of all ids come low ones."""
    tids = {int(name) for name in os.listdir(f"/proc/{workload.pid}/task")}
    return [workload.pid, *sorted(tids - {workload.pid})]


def test_threads_come_back_into_their_own_groups() -> None:
    with cgroups.group("cpu") as path:
        other = path / "other"
        other.mkdir()
        with Workload.start("threads", prefix=cgroups.entering(path)) as workload:
            workload.wait_ready()
            tids = _threads(workload)
            (other / "tasks").write_text(str(tids[-1]))
            workload.dump(options=MANAGED)
            assert _is_gone(path)
            workload.restore(options=MANAGED)
            found = {tid: cgroups.where(f"{workload.pid}/task/{tid}", path) for tid in tids}
            assert found == dict.fromkeys(tids, f"/{path.name}") | {tids[-1]: f"/{path.name}/other"}
            workload.expect_pass()


@pytest.mark.parametrize("names_root", [True, False])
def test_threads_come_back_into_threaded_groups_of_v2(names_root: bool) -> None:
    """With the group that they are in as a process, and in which no thread need be."""
    with cgroups.group("") as path:
        options = [*MANAGED, *(["--cgroup-root", f":/{path.name}"] if names_root else [])]
        (path / "cgroup.max.descendants").write_text("7")
        for name in ("one", "two"):
            (path / name).mkdir()
            (path / name / "cgroup.type").write_text("threaded")
        with Workload.start("threads", prefix=cgroups.entering(path)) as workload:
            workload.wait_ready()
            first, *_, last = _threads(workload)
            (path / "one" / "cgroup.threads").write_text(str(first))
            (path / "two" / "cgroup.threads").write_text(str(last))
            workload.dump(options=options)
            assert _is_gone(path)
            workload.restore(options=options)
            assert cgroups.where(workload.pid, path) == f"/{path.name}/one"
            assert cgroups.where(f"{workload.pid}/task/{last}", path) == f"/{path.name}/two"
            assert (path / "cgroup.max.descendants").read_text() == "7\n"
            workload.expect_pass()


def test_processes_of_one_tree_come_back_into_several_groups(group: Path) -> None:
    with Workload.start("family", prefix=cgroups.entering(group)) as workload:
        workload.wait_ready()
        (group / "inner").mkdir()
        *_, last = workload.processes()
        (group / "inner" / "cgroup.procs").write_text(str(last))
        before = {pid: cgroups.where(pid, group) for pid in workload.processes()}
        workload.dump(options=MANAGED)
        assert _is_gone(group)
        workload.restore(options=MANAGED)
        assert {pid: cgroups.where(pid, group) for pid in workload.processes()} == before
        workload.expect_pass()


def test_a_tree_moves_with_its_root_and_can_be_dumped_there(group: Path) -> None:
    hierarchy = "" if (group / "cgroup.controllers").exists() else "pids"
    root = ["--cgroup-root", f"{hierarchy}:/{group.name}-new"]
    new = group.parent / f"{group.name}-new"
    (group / "inner").mkdir()
    try:
        with Workload.start("counter", prefix=cgroups.entering(group)) as workload:
            workload.wait_ready()
            workload.dump(options=MANAGED)
            workload.restore(options=[*MANAGED, *root])
            assert cgroups.where(workload.pid, group) == f"/{new.name}"
            assert (new / "inner").is_dir()
            for image in workload.images.iterdir():
                image.unlink()
            workload.dump(options=MANAGED)
            assert _is_gone(new)
            workload.restore(options=MANAGED)
            assert cgroups.where(workload.pid, group) == f"/{new.name}"
            workload.expect_pass()
    finally:
        cgroups.remove(new)


@pytest.mark.parametrize(
    ("mode", "is_there", "outcome"),
    [
        ("soft", True, "77"), ("none", True, "77"), ("full", True, "55"), ("props", True, "55"),
        ("strict", True, "is there already"), ("soft", False, "55"), ("full", False, "55"), ("strict", False, "55"),
        ("none", False, "is not there"), ("props", False, "is not there"), ("ignore", True, ""),
    ],
)  # fmt: skip
def test_modes(mode: str, is_there: bool, outcome: str) -> None:
    with cgroups.group("pids") as path:
        (path / "pids.max").write_text("55")
        with Workload.start("counter", prefix=cgroups.entering(path)) as workload:
            workload.wait_ready()
            workload.dump(options=[*MANAGED, "--cgroup-dump-controller", "pids"])
            assert _is_gone(path)
            if is_there:
                path.mkdir()
                (path / "pids.max").write_text("77")
            options = [f"--manage-cgroups={mode}"]
            if not outcome.isdigit() and outcome:
                with pytest.raises(engine.EngineError, match=outcome):
                    workload.restore(options=options)
                return
            workload.restore(options=options)
            if outcome:
                assert (path / "pids.max").read_text().strip() == outcome
                assert cgroups.where(workload.pid, path) == f"/{path.name}"
            else:
                assert cgroups.where(workload.pid, path) == cgroups.where(os.getpid(), path)
            workload.expect_pass()


def test_a_restore_that_fails_removes_what_it_made() -> None:
    with cgroups.group("pids") as path, cgroups.group("") as other:
        (path / "inner").mkdir()
        with Workload.start("counter", prefix=cgroups.entering(path / "inner", other)) as workload:
            workload.wait_ready()
            workload.dump(options=[*MANAGED, "--cgroup-root", f"pids:/{path.name}"])
            assert _is_gone(path)
            assert _is_gone(other)
            script = workload.base / "no"
            script.write_text('#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != post-restore ]\n')
            script.chmod(0o755)
            with pytest.raises(engine.EngineError):
                workload.restore(options=[*MANAGED, "--action-script", str(script)])
            assert not path.exists()
            assert not other.exists()
            workload.restore(options=MANAGED)
            assert cgroups.where(workload.pid, path) == f"/{path.name}/inner"
            workload.expect_pass()


def _kill_restore(workload: Workload, directory: Path, is_undone: str, *paths: Path) -> None:
    """An action script kills the restorer when everything is made; wait until *is_undone* of *paths* (for sh)."""
    script = directory / "kill"
    kill = "kill -9 $PPID"
    script.write_text(f'#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" = post-restore ] && {kill}\nexit 0\n')
    script.chmod(0o755)
    with pytest.raises(engine.EngineError) as failed:
        workload.restore(options=[*MANAGED, "--action-script", str(script)])
    assert failed.value.returncode == -signal.SIGKILL
    command = ["sh", "-c", f"until {is_undone}; do :; done", *map(str, paths)]
    subprocess.run(command, check=True, timeout=time_limit_s(10))
    reap_session(workload.pid)


def test_a_restore_that_is_killed_leaves_no_groups(tmp_path: Path) -> None:
    with cgroups.group("pids") as path, cgroups.group("") as other:
        (path / "inner").mkdir()
        with Workload.start("counter", prefix=cgroups.entering(path / "inner", other)) as workload:
            workload.wait_ready()
            workload.dump(options=[*MANAGED, "--cgroup-root", f"pids:/{path.name}"])
            assert _is_gone(path)
            assert _is_gone(other)
            _kill_restore(workload, tmp_path, '[ ! -e "$0" ] && [ ! -e "$1" ]', path, other)
            workload.restore(options=MANAGED)
            workload.expect_pass()


def test_a_restore_that_is_killed_has_the_groups_above_hand_on_what_they_did(tmp_path: Path) -> None:
    """As a slice that hands nothing on once a unit of it has ended."""
    with _hugetlb_handed_on(), cgroups.group("") as path:
        inner, control = path / "inner", path / "cgroup.subtree_control"
        inner.mkdir()
        control.write_text("+hugetlb")
        (inner / _HUGE).write_text("4194304")
        with Workload.start("counter", prefix=cgroups.entering(inner)) as workload:
            workload.wait_ready()
            spec = f'"":\n - "strategy": "merge"\n - "properties": ["{_HUGE}"]\n'
            workload.dump(options=[*MANAGED, "--cgroup-props", spec])
            cgroups.remove(inner)
            control.write_text("-hugetlb")
            _kill_restore(workload, tmp_path, '[ ! -e "$0" ] && [ -z "$(cat "$1")" ]', inner, control)
            workload.restore(options=MANAGED)
            assert (inner / _HUGE).read_text() == "4194304\n"
            workload.expect_pass()


def test_the_roots_of_a_cgroup_namespace_come_back(group: Path) -> None:
    (group / "inner").mkdir()
    prefix = [*cgroups.entering(group), "unshare", "--cgroup", *cgroups.entering(group / "inner")]
    with Workload.start("counter", prefix=prefix) as workload:
        workload.wait_ready()
        before = _as_seen_inside(workload.pid)
        assert any(line.endswith(":/inner") for line in before)
        hierarchy = "" if (group / "cgroup.controllers").exists() else "pids"
        workload.dump(options=[*MANAGED, "--cgroup-root", f"{hierarchy}:/{group.name}"])
        assert _is_gone(group)
        workload.restore(options=MANAGED)
        assert os.readlink(f"/proc/{workload.pid}/ns/cgroup") != os.readlink("/proc/self/ns/cgroup")
        assert _as_seen_inside(workload.pid) == before
        workload.expect_pass()


def test_the_root_of_a_namespace_may_hand_controllers_on() -> None:
    """Of v2: no task is in such a group, though the namespace can only be made there."""
    with _hugetlb_handed_on(), cgroups.group("") as group:
        (group / "inner").mkdir()
        prefix = [*cgroups.entering(group), "unshare", "--cgroup", *cgroups.entering(group / "inner")]
        with Workload.start("counter", prefix=prefix) as workload:
            workload.wait_ready()
            (group / "cgroup.subtree_control").write_text("+hugetlb")
            (group / "inner" / _HUGE).write_text("4194304")
            spec = f'"":\n - "strategy": "merge"\n - "properties": ["{_HUGE}"]\n'
            workload.dump(options=[*MANAGED, "--cgroup-root", f":/{group.name}", "--cgroup-props", spec])
            assert _is_gone(group)
            workload.restore(options=MANAGED)
            assert (group / "cgroup.subtree_control").read_text() == "hugetlb\n"
            assert (group / "inner" / _HUGE).read_text() == "4194304\n"
            assert "0::/inner" in _as_seen_inside(workload.pid)
            workload.expect_pass()


@contextmanager
def _hugetlb_handed_on() -> Iterator[None]:
    """The root of v2 hands on the controller that no version 1 has here."""
    top = cgroups.mounted("")
    if "hugetlb" not in (top / "cgroup.controllers").read_text().split():
        missing("the controller hugetlb of v2")
    control = top / "cgroup.subtree_control"
    before = control.read_text().split()
    control.write_text("+hugetlb")
    try:
        yield
    finally:
        if "hugetlb" not in before:
            control.write_text("-hugetlb")


def test_a_mount_shows_what_the_cgroup_namespace_has_as_its_root(group: Path, tmp_path: Path) -> None:
    need_mounted_root()
    is_v2 = (group / "cgroup.controllers").exists()
    mount = f"mount -t {'cgroup2' if is_v2 else 'cgroup -o pids'} none {tmp_path}"
    prefix = [*cgroups.entering(group), "unshare", "--cgroup", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    new = group.parent / f"{group.name}-new"
    try:
        with Workload.start("counter", prefix=prefix) as workload:
            workload.wait_ready()
            assert _mounted_root(workload.pid, tmp_path) == f"/{group.name}"
            workload.dump(options=MANAGED)
            options = [*MANAGED, "--cgroup-root", f"{'' if is_v2 else 'pids'}:/{new.name}"]
            workload.restore(options=options)
            assert _mounted_root(workload.pid, tmp_path) == f"/{new.name}"
            workload.expect_pass()
    finally:
        cgroups.remove(new)


def _mounted_root(pid: int, point: Path) -> str:
    lines = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    return next(fields[3] for fields in lines if fields[4] == str(point))


def _as_seen_inside(pid: int) -> list[str]:
    command = ["nsenter", "--cgroup", "-t", str(pid), "cat", f"/proc/{pid}/cgroup"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_hierarchies_are_found_in_a_yard(group: Path, tmp_path: Path) -> None:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        name = line.split(":")[1]
        if not name.startswith("name="):
            (tmp_path / (name or "unified")).symlink_to(cgroups.mounted(name.split(",")[0]))
    yard = ["--cgroup-yard", str(tmp_path)]
    with Workload.start("counter", prefix=cgroups.entering(group)) as workload:
        workload.wait_ready()
        workload.dump(options=[*MANAGED, *yard])
        assert _is_gone(group)
        workload.restore(options=[*MANAGED, *yard])
        assert cgroups.where(workload.pid, group) == f"/{group.name}"
        workload.expect_pass()


def test_nothing_is_written_of_a_tree_that_is_where_we_are() -> None:
    with Workload.start("counter") as workload:
        workload.wait_ready()
        workload.dump(options=MANAGED)
        assert not (workload.images / "cgroup.img").exists()
        workload.restore(options=MANAGED)
        workload.expect_pass()


def test_a_tree_whose_groups_are_ignored_is_restored_where_we_are(group: Path) -> None:
    with Workload.start("counter", prefix=cgroups.entering(group)) as workload:
        workload.wait_ready()
        workload.dump(options=["--manage-cgroups=ignore"])
        assert not (workload.images / "cgroup.img").exists()
        workload.restore()
        assert cgroups.where(workload.pid, group) == cgroups.where(os.getpid(), group)
        workload.expect_pass()


def test_a_group_that_is_frozen_takes_no_tree() -> None:
    with cgroups.group("freezer") as path:
        with Workload.start("counter", prefix=cgroups.entering(path)) as workload:
            workload.wait_ready()
            workload.dump(options=MANAGED)
            (path / "freezer.state").write_text("FROZEN")
            with pytest.raises(engine.EngineError, match="is frozen"):
                workload.restore(options=MANAGED)
            (path / "freezer.state").write_text("THAWED")
            workload.restore(options=MANAGED)
            workload.expect_pass()
