"""Images made by one engine and restored by the other, and all of ours decoded by crit."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from harness import engine
from harness.workload import Workload

pytestmark = pytest.mark.root

PEER = shlex.split(os.environ.get("TORPOR_PEER", ""))
CRIT = shlex.split(os.environ.get("TORPOR_CRIT", ""))

#: Workloads that both engines can carry, and the options that both need for each.
WORKLOADS: dict[str, tuple[str, ...]] = {
    "counter": (),
    "threads": (),
    "pipe_contents": (),
    "ghost_files": ("--ghost-limit", "10M"),
    "linked_file": ("--link-remap",),
    "deleted_cwd": (),
    "fifos": (),
    "inotify": (),
    "plain_files": (),
    "file_owner": (),
    "file_locks": ("--file-locks",),
}
#: Kinds for which crit has no decoder; see docs/internals for why each is there.
NOT_FOR_CRIT = ("pages-", "stats-", "dump.log", "restore.log", "tmpfs-")

each_workload = pytest.mark.parametrize("name", WORKLOADS)


@each_workload
def test_crit_decodes_our_images(name: str) -> None:
    with Workload.start(name) as workload:
        workload.wait_ready()
        workload.dump(leave_running=True, options=WORKLOADS[name])
        complaints = [text for path in sorted(workload.images.iterdir()) if (text := complaint(path))]
        assert not complaints
        workload.expect_pass()


def complaint(path: Path) -> str:
    """What crit says against an image; empty if it decodes it."""
    if path.name.startswith(NOT_FOR_CRIT) or not path.is_file():
        return ""
    done = subprocess.run([*CRIT, "decode", "-i", str(path)], capture_output=True, text=True, check=False, timeout=60)
    return "" if done.returncode == 0 and not done.stderr else f"{path.name}: {done.stderr[-300:]}"


@each_workload
def test_the_peer_restores_ours(name: str) -> None:
    with Workload.start(name) as workload:
        workload.wait_ready()
        workload.dump(options=WORKLOADS[name])
        with engine.using(PEER):
            workload.restore(options=WORKLOADS[name])
        workload.expect_pass()


@each_workload
def test_we_restore_the_peers(name: str) -> None:
    with Workload.start(name) as workload:
        workload.wait_ready()
        with engine.using(PEER):
            workload.dump(options=WORKLOADS[name])
        workload.restore(options=WORKLOADS[name])
        workload.expect_pass()
