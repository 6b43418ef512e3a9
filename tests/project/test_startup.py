"""Start-up is part of every dump: the engine's path stays clear of modules that cost more than they are worth there."""

import subprocess
import sys

import pytest

#: What is not imported by the time a dump or restore begins, and what stands in for it.
COSTLY = {
    "argparse": "torpor.cli.criu.parse",
    "dataclasses": "torpor.base.records",
    "typing": "torpor.base.typed",
    "re": "the methods of str",
    "pathlib": "os.path",
    "socket": "_socket, or an import inside the function that needs it",
    "logging": "torpor.base.log",
    "threading": "an import inside the function that needs it",
    "concurrent.futures": "an import inside the function that needs it",
    "subprocess": "os.posix_spawn",
    "inspect": "nothing",
    "json": "an import inside the function that needs it",
    "shutil": "an import inside the function that needs it",
    "tempfile": "an import inside the function that needs it",
    "xxhash": "an import inside the function that needs it",
    "traceback": "an import inside the function that needs it",
}


@pytest.mark.parametrize("module", ["torpor.cli.criu.dump", "torpor.cli.criu.restore"])
def test_the_engines_path_imports_nothing_costly(module: str) -> None:
    program = f"import torpor.cli.criu.main, {module}; print(*sys.modules)"
    found = sorted(COSTLY.keys() & set(_run(program).split()))
    assert not found, [f"{name}: take {COSTLY[name]} instead" for name in found]


def test_the_package_itself_imports_next_to_nothing() -> None:
    program = "before = set(sys.modules); import torpor; print(*(set(sys.modules) - before))"
    assert set(_run(program).split()) <= {"torpor", "__future__"}


def _run(program: str) -> str:
    """What *program* prints, run without `site`, which imports things of its own."""
    path = [entry for entry in sys.path if entry]
    line = [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {path!r}; {program}"]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout
