"""Settings for all tests: the work tree's own code everywhere, root where it is needed, no silent skips in CI."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from harness import guardian, network
from harness.skips import in_ci, is_allowed, missing

_GUARDIAN = pytest.StashKey[int]()
_PASSED = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    # Subprocesses test the work tree as the tests themselves do (`pythonpath` in pyproject.toml), with compiled files,
    # and with output that is held back as it is for users.
    os.environ["PYTHONPATH"] = str(config.rootpath / "src")
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
        os.environ.pop(name, None)
    config.stash[_PASSED] = 0
    config.stash[_GUARDIAN] = guardian.start()


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[_GUARDIAN])


@pytest.fixture(scope="session")
def repository() -> Path:
    """The directory with pyproject.toml in it."""
    return Path(__file__).parent.parent


@pytest.fixture(scope="module")
def own_network() -> Generator[None]:
    """A network namespace for us and all that a file's tests start: nobody else's locks and addresses are in it."""
    with network.of_our_own():
        yield


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        missing("root")


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI, make a failure of a skip that did not come by way of harness.skips (importorskip, a skipif mark)."""
    if not in_ci() or report.outcome != "skipped" or hasattr(report, "wasxfail") or is_allowed(str(report.longrepr)):
        return
    report.outcome = "failed"
    report.longrepr = f"TORPOR_CI does not allow this skip: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _forbid_skip(report)
    if report.when == "call" and report.passed:
        item.config.stash[_PASSED] += 1
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _forbid_skip(report)
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run in which nothing passed has shown nothing: in CI that is no success."""
    if in_ci() and exitstatus == pytest.ExitCode.OK and session.config.stash[_PASSED] == 0:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
