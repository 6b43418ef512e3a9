"""What an installation contains: every file of src/torpor, its data included, and compiled."""

import importlib.metadata
import importlib.util
from pathlib import Path

from harness.skips import missing


def _installed_files() -> dict[str, Path]:
    try:
        distribution = importlib.metadata.distribution("torpor")
    except importlib.metadata.PackageNotFoundError:
        missing("an installed torpor beside the work tree (make test installs one)")
    return {str(file): Path(str(file.locate())) for file in distribution.files or []}


def test_every_file_is_installed(repository: Path) -> None:
    source = repository / "src"
    expected = {
        str(path.relative_to(source))
        for path in (source / "torpor").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    installed = {name for name in _installed_files() if name.startswith("torpor/") and "__pycache__" not in name}
    assert installed == expected, "the installation is not this work tree's: make install"


def test_modules_are_compiled() -> None:
    """Without .pyc files every start would compile anew, several times slower."""
    files = _installed_files()
    modules = [path for name, path in files.items() if name.startswith("torpor/") and name.endswith(".py")]
    not_compiled = [str(path) for path in modules if not Path(importlib.util.cache_from_source(str(path))).exists()]
    assert modules and not not_compiled
