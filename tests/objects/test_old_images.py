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
from torpor.images.pagemap import load_pagemap
from torpor.images.stores.directory import DirStore

pytestmark = pytest.mark.root
FIXTURES = Path(__file__).parent.parent / "fixtures"
#: By tests/fixtures/make_chain.py.
CHAIN = FIXTURES / "chains" / "criu-4.2.1.tar.xz"
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
    _restored(unpacked / name)


def test_pre_dumps_of_criu_and_the_dump_that_leans_on_them(tmp_path: Path) -> None:
    """Made by itself where the kernel knows which pages have been written, which it does not everywhere."""
    with tarfile.open(CHAIN) as archive:
        archive.extractall(tmp_path, numeric_owner=True)
    for name, n_in_parent in (("first", 0), ("second", 24), ("images", 24)):
        with DirStore(tmp_path / name) as store:
            runs = load_pagemap(store, 1).runs
            assert sum(run.n_pages for run in runs if run.in_parent) == n_in_parent
    _restored(tmp_path)


def _restored(base: Path) -> None:
    """The program in there checks itself."""
    become_subreaper()
    root, images = base / "root", base / "images"
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
