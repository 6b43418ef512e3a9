"""What an installation contains: every file of src/torpor, its data included, and compiled."""

import importlib.metadata
import importlib.util
import marshal
import os
import subprocess
import sys
from pathlib import Path

from harness.skips import missing
from torpor.base import bundle, bundling


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
    assert installed == expected | {f"torpor/base/{bundle.NAME}"}, (
        "the installation is not this work tree's: make install"
    )


def test_modules_are_compiled() -> None:
    """Without .pyc files every start would compile anew, several times slower."""
    files = _installed_files()
    modules = [path for name, path in files.items() if name.startswith("torpor/") and name.endswith(".py")]
    not_compiled = [str(path) for path in modules if not Path(importlib.util.cache_from_source(str(path))).exists()]
    assert modules and not not_compiled


def test_the_bundle_is_what_the_sources_say(repository: Path, tmp_path: Path) -> None:
    """The same modules, each compiled from its source as one that is made now has it (its bytes are never the same)."""
    (tmp_path / bundle.NAME).write_bytes(bundling.pack(repository / "src"))
    made = bundle.open_bundle(str(tmp_path))
    finder = bundle.open_bundle(str(_installed_files()[f"torpor/base/{bundle.NAME}"].parent))
    assert finder is not None and made is not None
    sources = dict(bundling.iter_sources(repository / "src"))
    assert made.index.keys() == sources.keys()
    assert finder.index.keys() == sources.keys(), "the installation is not this work tree's: make install"
    assert finder.orders == made.orders
    for name in sources:
        assert finder.get_code(name) == made.get_code(name), name


def test_the_command_takes_its_modules_from_the_bundle(tmp_path: Path) -> None:
    """And says of each where its source lies, which tracebacks and the log's lines need."""
    program = (
        "import sys\nfrom torpor.base.bundle import use\nuse()\nimport torpor.cli.criu.dump\n"
        "from torpor.kernel import capabilities\n"
        "for name, module in sorted(sys.modules.items()):\n"
        "    if name.startswith('torpor.') and name not in ('torpor.base', 'torpor.base.bundle'):\n"
        "        print(name, type(module.__loader__).__name__, module.__file__)\n"
        "print('code', capabilities.__loader__.__class__.__name__, torpor.cli.criu.dump.run.__code__.co_filename)\n"
        "try:\n    torpor.cli.criu.dump.run(None)\nexcept AttributeError as error:\n"
        "    import traceback\n    print(*traceback.format_exception(error), file=sys.stderr)\n"
    )
    files = _installed_files()
    home = files["torpor/__init__.py"].parents[1]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    told = [line.split() for line in done.stdout.splitlines()]
    assert len(told) > 150
    for name, loader, path in told:
        assert loader == "Finder" and (home / path).exists()
        assert path.startswith(str(home)) or (name, path) == ("code", "torpor/cli/criu/dump.py")
    assert '"torpor/cli/criu/dump.py", line ' in done.stderr and "notifier(options, client)" in done.stderr


def test_a_bundle_for_another_python_is_left_alone(tmp_path: Path) -> None:
    """Its code objects would not run; the modules' own files do."""
    whole = bundling.pack(Path(bundle.__file__).parents[2])
    made = tmp_path / "torpor" / "base" / bundle.NAME
    made.parent.mkdir(parents=True)
    for name in ("__init__.py", "base/__init__.py", "base/bundle.py"):
        (tmp_path / "torpor" / name).write_bytes((Path(bundle.__file__).parents[1] / name).read_bytes())
    program = (
        "import sys\nfrom torpor.base.bundle import use\nuse()\n"
        "print(any(type(finder).__name__ == 'Finder' for finder in sys.meta_path))"
    )
    line = [sys.executable, "-P", "-c", program]
    for data, is_used in ((whole, True), (b"other" + whole[5:], False), (b"", False), (marshal.dumps({}), False)):
        made.write_bytes(data)
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(line, capture_output=True, text=True, check=True, env=environment)
        assert done.stdout.strip() == str(is_used)
