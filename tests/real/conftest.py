"""Real programs, in each place."""

from collections.abc import Iterator

import pytest

from harness.program import PLACES, Program


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "program" in metafunc.fixturenames:
        metafunc.parametrize("place", list(PLACES), scope="function")


@pytest.fixture
def program(place: str) -> Iterator[Program]:
    """A program that is not started yet, in the place of the test."""
    with PLACES[place]() as found:
        yield found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/real/" in str(item.path):
            item.add_marker(pytest.mark.real)
            item.add_marker(pytest.mark.root)
