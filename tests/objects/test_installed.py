"""Kernel objects by the installed command, whose modules come from the bundle: stand-ins and all, as users have it."""

import sys
from pathlib import Path

import pytest

from harness import engine
from harness.flavours import Flavour, carry_through, start
from harness.skips import missing

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]

INSTALLED = Path(sys.executable).parent / "criu"
#: Which between them meet most of what a dump and a restore load.
WORKLOADS: dict[str, tuple[str, ...]] = {
    "epoll": (), "family": (), "file_locks": ("--file-locks",), "ghost_files": (), "inotify": (), "interrupted": (),
    "memfd": (), "pipe_contents": (), "posix_timers": (), "private_memory": (), "pty_session": (),
    "seccomp_filters": (), "tcp_pair": ("--tcp-established",), "threads": (), "timerfd": (), "udp_queue": (),
    "unix_names": (), "unix_pairs": (), "zombies": (),
}  # fmt: skip


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("flavour", [Flavour.HOST, Flavour.FRESH], ids=lambda flavour: flavour.value)
def test_as_installed(name: str, flavour: Flavour, monkeypatch: pytest.MonkeyPatch) -> None:
    if not INSTALLED.exists():
        missing("an installed torpor beside the work tree (make test installs one)")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with engine.using([str(INSTALLED)]), start(flavour, name) as workload:
        workload.wait_ready()
        carry_through(flavour, workload, dump_options=WORKLOADS[name], restore_options=WORKLOADS[name])
        workload.expect_pass()
