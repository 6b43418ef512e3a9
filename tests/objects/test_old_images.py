"""Images that an older torpor has made are restored by every later one, and what they hold is right.

tests/fixtures/make.py has made them; the programs check themselves as ever.
"""

import os
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import OPTIONS, WORKLOADS
from harness import engine
from harness.events import ProcessWatch, RenameWatch, become_subreaper, time_limit_s, wait_renamed

pytestmark = pytest.mark.root
FIXTURES = Path(__file__).parent.parent / "fixtures"
COMMITS = sorted(path.name.removesuffix(".tar.xz") for path in FIXTURES.glob("*.tar.xz"))


@pytest.fixture(scope="module", params=COMMITS)
def unpacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    base = tmp_path_factory.mktemp("old")
    with tarfile.open(FIXTURES / f"{request.param}.tar.xz") as archive:
        archive.extractall(base, numeric_owner=True)
    yield base


def test_there_are_some() -> None:
    assert COMMITS


@pytest.mark.parametrize("name", WORKLOADS)
def test_old_images(name: str, unpacked: Path) -> None:
    become_subreaper()
    root, images = unpacked / name / "root", unpacked / name / "images"
    status = root / "status"
    assert status.read_text() == "ready"
    pid = engine.restore(images, options=["--root", str(root), *OPTIONS])
    watch, process = RenameWatch(root), ProcessWatch(pid)
    os.kill(pid, signal.SIGTERM)
    try:
        wait_renamed(watch, process, lambda: status.read_text() != "ready", time_limit_s(30))
        assert status.read_text() == "pass"
    finally:
        if not process.has_ended():
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        process.close()
        watch.close()
