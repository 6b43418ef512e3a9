"""The linters and the type checker, as tests: whoever runs the tests has run them."""

import importlib.util
import subprocess
import sys
from pathlib import Path

from harness.skips import missing


def _run(repository: Path, module: str, *arguments: str) -> None:
    if importlib.util.find_spec(module) is None:
        missing(f"the Python module {module} (pip install '.[dev]')")
    result = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=repository, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{module} {' '.join(arguments)}\n{result.stdout}{result.stderr}"


def test_ruff_check(repository: Path) -> None:
    _run(repository, "ruff", "check", ".")


def test_ruff_format(repository: Path) -> None:
    _run(repository, "ruff", "format", "--check", ".")


def test_mypy_strict(repository: Path) -> None:
    _run(repository, "mypy")
