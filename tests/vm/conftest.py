"""What tests in machines share.  They run when $TORPOR_VM names kernels ("all", "6.1,7.x"): `make test-vm` does.

Without it they are not collected, rather than skipped: a run without machines has not missed anything.  At the end
stands what came of each kernel.
"""

import os
from pathlib import Path

import pytest

from vm import payload, summary
from vm.architectures import AMD64, Architecture
from vm.kernels import KERNELS, Kernel, by_name


def _chosen() -> list[Kernel]:
    names = os.environ.get("TORPOR_VM", "")
    return list(KERNELS) if names == "all" else [by_name(name) for name in names.split(",") if name]


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Only what needs no machine is collected without $TORPOR_VM."""
    needs_machine = collection_path.name.startswith("test_in_")
    return True if needs_machine and not _chosen() else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `kernel` runs once for each kernel chosen."""
    if "kernel" in metafunc.fixturenames:
        metafunc.parametrize("kernel", _chosen(), ids=lambda kernel: kernel.name, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What goes through several kernels runs only if all of them are chosen."""
    names = {kernel.name for kernel in _chosen()}
    left_out = [
        item
        for item in items
        if isinstance(item, pytest.Function) and not names.issuperset(getattr(item.module, "ORDER", ()))
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The last lines: what came of each kernel."""
    for line in summary.lines(terminalreporter.stats):
        terminalreporter.write_line(line)


def _architecture(request: pytest.FixtureRequest) -> Architecture:
    """Of the kernel that the test asks for; one that asks for none boots several of the usual ones."""
    kernel: Kernel | None = request.getfixturevalue("kernel") if "kernel" in request.fixturenames else None
    return kernel.architecture if kernel is not None else AMD64


@pytest.fixture
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Path]:
    """The payload with another CRIU, whose root $TORPOR_VM_PEER is (`/usr/sbin/criu`, and its libraries), if any."""
    place = os.environ.get("TORPOR_VM_PEER")
    return payload.peer(Path(place), tmp_path, _architecture(request)) if place else {}


@pytest.fixture
def installed(request: pytest.FixtureRequest) -> dict[str, Path]:
    """The payload with torpor installed, and our tests."""
    return {**payload.environment(architecture=_architecture(request)), **payload.tests()}
