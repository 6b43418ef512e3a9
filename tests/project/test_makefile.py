"""What `make test` installs is said before it is: what, why, how much; `make unit` needs nothing of the system."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.skips import missing

_APT = """#!/bin/sh
echo "Need to get 44.0 kB of archives."
echo "After this operation, 198 kB of additional disk space will be used."
echo "apt-get $*" >> "$TOLD"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a Debian where nothing is installed, and where apt-get only notes what it is asked."""
    for name, script in (("apt-get", _APT), ("dpkg-query", "#!/bin/sh\nexit 1\n")):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "TOLD": str(tmp_path / "told")}


def test_it_is_told_first(repository: Path, environment: dict[str, str]) -> None:
    line = [str(repository / "tools/apt-install"), "--tell", "--why", "the tests need it", "gcc", "git"]
    said = subprocess.run(line, capture_output=True, text=True, check=True, env=environment).stdout
    assert said == "  the tests need it: 44.0 kB to download, 198 kB on disk\n    gcc git\n"
    asked = Path(environment["TOLD"]).read_text().splitlines()
    assert asked == ["apt-get --assume-no --no-install-recommends install gcc git"]


def _would_run(repository: Path, target: str) -> str:
    if shutil.which("make") is None:
        missing("the command make (Debian: make)")
    line = ["make", "-n", "-C", str(repository), target]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout


def test_make_test_begins_with_it(repository: Path) -> None:
    lines = _would_run(repository, "test").splitlines()
    first = next(number for number, line in enumerate(lines) if "make test installs" in line)
    assert not [line for line in lines[:first] if "pip install" in line or "apt-install" in line]


def test_make_unit_needs_no_system_packages(repository: Path) -> None:
    said = _would_run(repository, "unit")
    assert "pytest tests/unit" in said and "apt-install --why" not in said and "apt-install gcc" not in said
