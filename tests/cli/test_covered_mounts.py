"""A job where the host's mounts lie over each other: what nobody can see, there as here, is no part of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.events import time_limit_s

pytestmark = pytest.mark.root

#: `$1` is covered with all that is mounted below it, as often as `$2` says.
_SCRIPT = """
mount --make-rprivate /
mount -t tmpfs covered $1
mkdir $1/below
mount -t tmpfs below $1/below
touch $1/below/file
mkdir $1/below/deeper
mount -t tmpfs deeper $1/below/deeper
for _ in $(seq $2); do mount -t tmpfs seen $1; done
touch $1/seen
python=$3
torpor() { "$python" -m torpor.cli.torpor "$@"; }
torpor run --name covered -d sleep 1000
trap 'torpor kill covered' EXIT
torpor checkpoint covered
torpor restore covered
ls /proc/$(torpor ps | awk '$1 == "covered" { print $3 }')/root/$1
"""


@pytest.mark.parametrize("n_covers", [1, 2])
def test_what_nobody_can_see_is_left_out(n_covers: int, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", _SCRIPT, "sh", str(place), str(n_covers), sys.executable],
        env={**os.environ, "TORPOR_STATE": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        timeout=time_limit_s(60),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seen" in done.stdout.split()
    assert "Warn" not in done.stderr
