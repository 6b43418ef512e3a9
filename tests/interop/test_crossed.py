"""Images made by one engine and restored by the other, and all of ours decoded by crit."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from harness import cgroups, engine, generations, parent_images
from harness.skips import missing
from harness.workload import Workload, WorkloadError
from torpor.engine.dump.run import pre_dump

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]

PEER = shlex.split(os.environ.get("TORPOR_PEER", ""))
CRIT = shlex.split(os.environ.get("TORPOR_CRIT", ""))

#: Workloads that both engines can carry, and the options that both need for each.
WORKLOADS: dict[str, tuple[str, ...]] = {
    "kinds epoll": (),
    "kinds eventfd": (),
    "kinds unix": (),
    "kinds tcp4": (),
    "kinds tcp6": (),
    "kinds udp": (),
    "kinds zombie": (),
    "kinds group": (),
    "kinds session": (),
    "kinds stopped": (),
    "kinds inotify": (),
    "kinds pidfd": (),
    "kinds pty": (),
    "kinds ghost": (),
    "kinds shared": (),
    "kinds connection": ("--tcp-established", "--network-lock", "skip"),
    "aio": (),
    "autodisarm": (),
    "chrooted": (),
    "clocks 2 1": (),  # it lets go of the nanoseconds of an absolute timerfd
    "copy_on_write": (),
    "counter": (),
    "credentials": (),
    "death_signal": (),
    "deleted_cwd": (),
    "epoll": (),
    "eventfd": (),
    "family": (),
    "fanotify": (),
    "fifos": (),
    "file_locks": ("--file-locks",),
    "file_owner": (),
    "ghost_files": ("--ghost-limit", "10M"),
    "inotify": (),
    "interrupted": (),
    "itimers": (),
    "limits": (),
    "linked_file": ("--link-remap",),
    "many_descriptors": (),
    "memfd": (),
    "names": (),
    "networks pair": (),
    "named_semaphore": ("--link-remap",),
    "namespace_files": (),
    "packet": (),
    "pidfd": (),
    "pipe_contents": (),
    "pipe_modes": (),
    "plain_files": (),
    "posix_timers": (),
    "private_memory": (),
    "pty": (),
    "pty_session": (),
    "scheduling": (),
    "seccomp_filters": (),
    "seccomp_strict": (),
    "shared_anonymous": (),
    "shared_tables": (),
    "signalfd": (),
    "signals": (),
    "stopped": (),
    "tcp_listen": (),
    "tcp_pair": ("--tcp-established", "--network-lock", "skip"),
    "threads": (),
    "timerfd": (),
    "udp": (),
    "unix_names": (),
    "unix_pairs": (),
    "vectors": (),
    "zombies": (),
}
#: Kinds for which crit has no decoder; see docs/internals for why each is there.
NOT_FOR_CRIT = (
    "pages-", "stats-", "dump.log", "restore.log", "tmpfs-", "torpor-", "torpor.", "ifaddr-", "route-", "route6-",
    "rule-",
)  # fmt: skip

#: What needs fields of ours, of many kinds, and the options for it.
RECODED: dict[str, tuple[str, ...]] = {
    "vectors": (),
    "threads": (),
    "scheduling": (),
    "mempolicy": (),
    "private_memory": (),
    "eventfd": (),
    "epoll": (),
    "timerfd": (),
    "pidfd": (),
    "pipe_modes": (),
    "unix_names": (),
    "udp_queue": (),
    "tcp_pair": ("--tcp-established", "--network-lock", "skip"),
    "pty": (),
    "mqueue": (),
    "stopped": (),
}

#: Directions: the peer restores ours, we restore the peer's.
OURS, THEIRS = "ours", "theirs"
#: What fails because of the peer, in which directions, and why.  That it fails without us as well is tested.
KNOWN: dict[str, tuple[tuple[str, ...], str]] = {
    "copy_on_write": ((OURS,), "it restores pages that were shared by copy-on-write as copies"),
    "credentials": ((THEIRS,), "without CAP_SYS_RESOURCE it cannot read the limits of another user's process"),
    "death_signal": ((THEIRS,), "without CAP_SYS_RESOURCE it cannot read the limits of another user's process"),
    "epoll": ((OURS, THEIRS), "it knows watched files only by the numbers of descriptors, which may be others' by now"),
    "eventfd": ((OURS, THEIRS), "it dumps neither EFD_SEMAPHORE nor the upper half of the counter"),
    "family": ((OURS,), "it does not make sessions whose leader is gone"),
    "fanotify": ((OURS,), "it restores no marks of deleted files"),
    "ghost_files": ((OURS, THEIRS), "it removes a deleted directory before its files, and dumps whole microseconds"),
    "inotify": ((OURS,), "it restores ghost files below a watched directory after its watch"),
    "interrupted": ((THEIRS,), "it lets calls with a time limit end by EINTR"),
    "limits": ((OURS,), "it restores pending signals after the limit on them, and then has no room"),
    "memfd": ((OURS, THEIRS), "it keeps neither times nor extended attributes of a memfd"),
    "many_descriptors": ((OURS,), "it wants free descriptor numbers below the limit for itself"),
    "pidfd": ((OURS, THEIRS), "it knows no pidfds of threads"),
    "pipe_modes": ((OURS, THEIRS), "it knows no pipes in packet mode"),
    "private_memory": ((OURS, THEIRS), "it knows no MLOCK_ONFAULT"),
    "pty": ((OURS, THEIRS), "it dumps neither what is queued in a terminal nor its exclusive mode"),
    "pty_session": ((THEIRS,), "it knows no controlling terminal that was inherited from outside of the tree"),
    "scheduling": ((OURS, THEIRS), "it dumps no parameters of SCHED_DEADLINE and no SCHED_RESET_ON_FORK"),
    "stopped": ((OURS, THEIRS), "it restores stopped children with their stop unreported, and SIGCHLD pending"),
    "tcp_listen": ((OURS, THEIRS), "it dumps no TCP_DEFER_ACCEPT"),
    "tcp_pair": ((OURS,), "it sends what was not sent before the other end is there, so it needs a network lock"),
    "udp": ((OURS, THEIRS), "it dumps no IP_RECVTTL"),
    "unix_names": ((OURS, THEIRS), "it knows no control messages in queues and no connections that wait"),
    "unix_pairs": ((THEIRS,), "it dumps no empty datagrams"),
    "zombies": ((OURS,), "it makes no zombie that leads a process group with members"),
}
#: The peer calls this memory a memfd, whoever dumped it; after its own dump the name only happens to look right.
RENAMED = {"shared_anonymous": ((OURS,), "it restores shared anonymous memory as a memfd without a name")}


each_workload = pytest.mark.parametrize("name", WORKLOADS)


def _crossed(direction: str) -> pytest.MarkDecorator:
    """All workloads; those that the peer fails in that direction are expected to fail, until it no longer does."""
    known = {name: why for name, (directions, why) in {**KNOWN, **RENAMED}.items() if direction in directions}
    marks = {name: [pytest.mark.xfail(strict=True, reason=known[name])] if name in known else [] for name in WORKLOADS}
    return pytest.mark.parametrize("name", [pytest.param(name, marks=marks[name]) for name in WORKLOADS])


def _started(name: str) -> Workload:
    workload, *args = name.split()
    return Workload.start(workload, args)


@each_workload
def test_crit_decodes_our_images(name: str) -> None:
    with _started(name) as workload:
        workload.wait_ready()
        workload.dump(leave_running=True, options=WORKLOADS[name])
        complaints = [text for path in sorted(workload.images.iterdir()) if (text := complaint(path))]
        assert not complaints
        workload.expect_pass()


def complaint(path: Path) -> str:
    """What crit says against an image; empty if it decodes it."""
    if path.name.startswith(NOT_FOR_CRIT) or path.suffix == ".torpor" or not path.is_file():
        return ""
    done = subprocess.run([*CRIT, "decode", "-i", str(path)], capture_output=True, text=True, check=False, timeout=60)
    return "" if done.returncode == 0 and not done.stderr else f"{path.name}: {done.stderr[-300:]}"


@_crossed(OURS)
def test_the_peer_restores_ours(name: str) -> None:
    with _started(name) as workload:
        workload.wait_ready()
        workload.dump(options=WORKLOADS[name])
        with engine.using(PEER):
            workload.restore(options=WORKLOADS[name])
        workload.expect_pass()


@_crossed(THEIRS)
def test_we_restore_the_peers(name: str) -> None:
    with _started(name) as workload:
        workload.wait_ready()
        with engine.using(PEER):
            workload.dump(options=WORKLOADS[name])
        workload.restore(options=WORKLOADS[name])
        workload.expect_pass()


@pytest.mark.parametrize("shift_s", [-100, 5000])
@pytest.mark.parametrize("direction", [OURS, THEIRS])
def test_clocks_go_on_elsewhere(direction: str, shift_s: int) -> None:
    ours: list[str] = engine.command()
    elsewhere = ["unshare", "--time", "--monotonic", str(shift_s), "--boottime", str(2 * shift_s)]
    with _started("clocks 3 1") as workload:
        workload.wait_ready()
        with engine.using(ours if direction == OURS else PEER):
            workload.dump()
        with engine.using([*elsewhere, *(PEER if direction == OURS else ours)]):
            workload.restore()
        # What the other has put into a time namespace is carried on.
        with engine.using(ours if direction == OURS else PEER):
            workload.dump()
            workload.restore()
        workload.expect_pass()


@pytest.mark.parametrize("what", ["mdwe", "dispatch"])
def test_the_peer_refuses_what_it_would_set_free(what: str) -> None:
    with _started(f"confined {what}") as workload:
        workload.wait_ready()
        workload.dump()
        with engine.using(PEER), pytest.raises(engine.EngineError, match="image"):
            engine.restore(workload.images)
        workload.restore()
        workload.expect_pass()


@pytest.mark.parametrize("name", ["counter", "threads", "vectors"])
def test_the_peer_reads_parent_images_as_we_do(name: str) -> None:
    """What tests/objects/test_parent_images.py makes by hand is right."""
    with _started(name) as workload:
        workload.wait_ready()
        workload.dump()
        assert parent_images.split(workload.images) > 10
        with engine.using(PEER):
            workload.restore()
        workload.expect_pass()


@pytest.mark.parametrize("name", ["private_memory", "shared_anonymous", "memfd", "copy_on_write"])
@pytest.mark.parametrize("direction", [OURS, THEIRS])
def test_dumps_that_lean_on_others_are_crossed(direction: str, name: str) -> None:
    """Three of one tree whose memory changes in between: each page is that of the last moment."""
    ours: list[str] = engine.command()
    with _started(name) as workload:
        workload.wait_ready()
        with engine.using(ours if direction == OURS else PEER):
            changed, memory = generations.dump(workload)
        assert len(changed) > 4
        with engine.using(PEER if direction == OURS else ours):
            workload.restore()
        assert not generations.changes_in(workload, memory)


@pytest.mark.parametrize("name", ["private_memory", "copy_on_write"])
def test_it_restores_a_dump_that_leans_on_our_pre_dumps(name: str) -> None:
    with _started(name) as workload:
        workload.wait_ready()
        changed, memory = generations.dump(workload, earlier=pre_dump)
        assert len(changed) > 4
        with engine.using(PEER):
            workload.restore()
        assert not generations.changes_in(workload, memory)


def test_its_pre_dumps_are_the_parents_of_its_dump() -> None:
    """As it makes them itself, where the kernel tells which pages have been written."""
    if subprocess.run([*PEER, "check", "--feature", "mem_dirty_track"], capture_output=True, check=False).returncode:
        missing("pages that are known to have been written (CONFIG_MEM_SOFT_DIRTY), for the peer's --track-mem")
    with _started("shared_anonymous") as workload:
        workload.wait_ready()
        sets = [workload.base / "first", workload.base / "second"]
        changed: generations.Places = []
        for salt, images in enumerate(sets, 1):
            images.mkdir()
            before = ["--prev-images-dir", "../first"] if salt > 1 else []
            line = [*PEER, "pre-dump", "-t", str(workload.pid), "-D", str(images), "--track-mem", *before]
            subprocess.run(line, check=True, timeout=60)
            changed += generations.change(workload, salt)
        memory = generations.memory_of(workload)
        with engine.using(PEER):
            workload.dump(options=("--track-mem", "--prev-images-dir", "../second"))
        workload.restore()
        assert not generations.changes_in(workload, memory)
        generations.put_back(workload, changed)
        workload.expect_pass()


@pytest.mark.skipif(not CRIT, reason="only where a crit is named")
@pytest.mark.parametrize("name", [*RECODED, "kinds tcp4", "kinds udp", "kinds pty", "kinds inotify"])
def test_what_crit_decodes_it_encodes_byte_by_byte(name: str) -> None:
    """And the set that it wrote has all that is not CRIU's as well."""
    with _started(name) as workload:
        workload.wait_ready()
        workload.dump(options=RECODED.get(name, ()))
        images = [path for path in workload.images.glob("*.img") if not path.name.startswith(NOT_FOR_CRIT)]
        assert len(images) > 8
        for image in images:
            before = image.read_bytes()
            told = subprocess.run([*CRIT, "decode", "-i", str(image)], capture_output=True, check=True, timeout=60)
            made = subprocess.run([*CRIT, "encode"], input=told.stdout, capture_output=True, check=True, timeout=60)
            assert made.stdout == before, image.name
            image.write_bytes(made.stdout)
        workload.restore(options=RECODED.get(name, ()))
        workload.expect_pass()


@pytest.mark.parametrize("direction", [OURS, THEIRS])
@pytest.mark.parametrize("hierarchy", ["pids", ""], ids=["v1", "v2"])
def test_control_groups_are_crossed(hierarchy: str, direction: str) -> None:
    limit = "pids.max" if hierarchy else "cgroup.max.depth"
    ours: list[str] = engine.command()
    with cgroups.group(hierarchy) as group:
        (group / "inner").mkdir()
        (group / limit).write_text("55")
        prefix = [*cgroups.entering(group), "unshare", "--cgroup", *cgroups.entering(group / "inner")]
        with Workload.start("counter", prefix=prefix) as workload:
            workload.wait_ready()
            options = ["--manage-cgroups", "--cgroup-root", f"{hierarchy}:/{group.name}"]
            with engine.using(ours if direction == OURS else PEER):
                workload.dump(options=options)
            cgroups.remove(group)
            with engine.using(PEER if direction == OURS else ours):
                workload.restore(options=["--manage-cgroups"])
            assert cgroups.where(workload.pid, group) == f"/{group.name}/inner"
            assert (group / limit).read_text() == "55\n"
            workload.expect_pass()


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known_fails_without_us(name: str) -> None:
    with _started(name) as workload, engine.using(PEER):
        workload.wait_ready()
        with pytest.raises((engine.EngineError, WorkloadError)):
            workload.dump(options=WORKLOADS[name])
            workload.restore(options=WORKLOADS[name])
            workload.expect_pass()
