"""What a dump and a restore of nearly nothing load: start-up is most of what they cost, so nothing slips in unseen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.events import time_limit_s

pytestmark = pytest.mark.root

#: Modules of ours; a few more than are loaded today.
MOST = {"dump": 254, "restore": 235}
#: For what an idle process has none of.
FOREIGN = (
    "re", "socket", "torpor.objects.files.epoll", "torpor.objects.files.socket.inet", "torpor.objects.files.tty",
    "torpor.objects.files.tunfile", "torpor.objects.ns.mnt", "torpor.objects.ns.net.build",
)  # fmt: skip


def _loaded(words: list[str]) -> set[str]:
    """The modules that the command imports, told by the interpreter itself."""
    line = [sys.executable, "-X", "importtime", "-m", "torpor.cli.criu.main", *words]
    done = subprocess.run(
        line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=time_limit_s(60), check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = (line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:"))
    return set(told)


def test_an_idle_process_loads_what_it_needs(tmp_path: Path) -> None:
    with subprocess.Popen(
        ["sleep", "1000"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as idle:  # fmt: skip
        images = str(tmp_path)
        try:
            loaded = {"dump": _loaded(["dump", "-t", str(idle.pid), "-D", images, "-o", "dump.log"])}
            idle.wait()
            loaded["restore"] = _loaded(["restore", "-d", "-D", images, "-o", "restore.log"])
        finally:
            os.kill(idle.pid, 9)
    for what, modules in loaded.items():
        ours = {name for name in modules if name.startswith("torpor")}
        assert not modules & set(FOREIGN), what
        assert len(ours) <= MOST[what], (what, len(ours))
