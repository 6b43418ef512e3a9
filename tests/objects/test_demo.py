"""The demonstration does what it says."""

import subprocess
import sys
from pathlib import Path

import pytest

from harness.events import time_limit_s
from harness.skips import need_mounted_root

#: Nobody else is given the demonstration's port while its server sleeps.
pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]

#: Arguments: an empty directory, then a command, run with that directory as its root, which is no mount point.
_IN_CHROOT = """
set -eu
root=$1; shift
for path in /*; do
    if [ -L "$path" ]; then cp -P "$path" "$root/"
    elif [ -d "$path" ]; then mkdir "$root$path"; mount --rbind "$path" "$root$path"
    fi
done
exec chroot "$root" "$@"
"""


def _shows_it(line: list[str]) -> None:
    done = subprocess.run(line, capture_output=True, text=True, timeout=time_limit_s(60), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "connection refused" in done.stdout
    assert "Both went on from the same state." in done.stdout


def test_the_demo_shows_both_copies_counting_on() -> None:
    _shows_it([sys.executable, "-m", "torpor.demo"])


def test_the_demo_in_a_chroot(tmp_path: Path) -> None:
    need_mounted_root()
    prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _IN_CHROOT, "sh", str(tmp_path)]
    _shows_it([*prefix, sys.executable, "-m", "torpor.demo"])


def test_the_demo_in_a_chroot_that_is_a_mount_point(tmp_path: Path) -> None:
    script = _IN_CHROOT.replace("root=$1; shift", 'root=$1; shift; mount --bind "$root" "$root"')
    prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(tmp_path)]
    _shows_it([*prefix, sys.executable, "-m", "torpor.demo"])
