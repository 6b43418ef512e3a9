"""What a machine is given: torpor as it is installed from a wheel, and our tests.

The machine's Python need not be the host's, and there is no pip in it: the virtual environment is laid out here, for
the interpreter that Debian has there, and copied into the machine's root.
"""

import compileall
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.sources import WheelFile

from harness.cache import made
from harness.skips import missing
from vm.architectures import AMD64, Architecture

REPOSITORY = Path(__file__).parent.parent.parent
#: Debian's, by suite.
PYTHON_VERSIONS = {"bookworm": (3, 11), "trixie": (3, 13)}
PREFIX = Path("/opt/torpor")
PEER = Path("/srv/peer/criu")
_PEER_PROGRAM = "usr/sbin/criu"

_REQUIREMENTS = ("protobuf>=4.25", "xxhash>=3.0", "pytest>=8.2", "pexpect>=4.9")


def environment(suite: str = "bookworm", architecture: Architecture = AMD64) -> dict[str, Path]:
    """The payload that gives such a machine /opt/torpor, with `criu` and `torpor` on its PATH."""
    python = PYTHON_VERSIONS[suite]
    recipe = hashlib.sha256(f"{python} {_REQUIREMENTS}{_suffix(architecture)}".encode())
    for path in _sources():
        recipe.update(f"{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes())
    name = f"vm-{suite}-environment{_suffix(architecture)}"
    return {"root": made(name, recipe.digest(), lambda work: _make_environment(python, architecture, work))}


def tests() -> dict[str, Path]:
    """The payload that gives a machine our tests, in /lab/tests."""
    return {name: REPOSITORY / name for name in ("tests", "pyproject.toml")}


def peer(root: Path, scratch: Path, machine: Architecture = AMD64) -> dict[str, Path]:
    """The payload that gives a machine PEER, another CRIU, which is below *root* here; it brings its own libraries."""
    place, loader = PEER.parent, f"{machine.libraries}/{machine.loader}"
    command = scratch / "criu"
    command.write_text(
        f'#!/bin/sh\nexec {place}/{loader} --library-path {place}/{machine.libraries} {place}/{_PEER_PROGRAM} "$@"\n'
    )
    command.chmod(0o755)
    parts = {f"root{place}/{name}": root / name for name in (machine.libraries, _PEER_PROGRAM)}
    return {**parts, f"root{PEER}": command}


def _sources() -> list[Path]:
    """What the wheel is made of."""
    trees = [path for name in ("src", "bin", "docs") for path in sorted((REPOSITORY / name).rglob("*"))]
    tops = [REPOSITORY / name for name in ("pyproject.toml", "hatch_build.py", "README.md")]
    return [path for path in (*tops, *trees) if path.is_file() and path.suffix != ".pyc"]


def _site(python: tuple[int, int]) -> Path:
    return PREFIX / f"lib/python{python[0]}.{python[1]}/site-packages"


def _make_environment(python: tuple[int, int], architecture: Architecture, work: Path) -> Path:
    root = work / "root"
    place = _site(python)
    site = root / place.relative_to("/")
    site.mkdir(parents=True)
    (root / "opt/torpor/bin").mkdir()
    (root / "opt/torpor/bin/python").symlink_to("/usr/bin/python3")
    (root / "opt/torpor/pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    _install(_wheel(work), place, root)
    _compile(python, site)
    subprocess.run(["cp", "-a", f"{_dependencies(python, architecture)}/.", str(site)], check=True)
    return root


def _wheel(work: Path) -> Path:
    line = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel", "--no-deps"]
    _run([*line, "--wheel-dir", str(work), str(REPOSITORY)])
    (wheel,) = work.glob("*.whl")
    return wheel


def _install(wheel: Path, site: Path, root: Path) -> None:
    scheme = {
        "purelib": site,
        "platlib": site,
        "scripts": PREFIX / "bin",
        "data": PREFIX,
        "headers": PREFIX / "include",
    }
    destination = SchemeDictionaryDestination(
        {name: str(path) for name, path in scheme.items()},
        interpreter=str(PREFIX / "bin/python"),
        script_kind="posix",
        destdir=str(root),
    )
    with WheelFile.open(wheel) as source:
        install(source, destination, additional_metadata={})


def _suffix(architecture: Architecture) -> str:
    return "" if architecture is AMD64 else f"-{architecture.name}"


def _dependencies(python: tuple[int, int], architecture: Architecture) -> Path:
    """Site packages for the machine's Python, from the package index."""
    name = f"{'.'.join(map(str, python))}{_suffix(architecture)}"
    recipe = f"{name} {_REQUIREMENTS}".encode()
    return made(f"vm-python{name}", recipe, lambda work: _make_dependencies(python, architecture, work))


def _make_dependencies(python: tuple[int, int], architecture: Architecture, work: Path) -> Path:
    target = work / "site"
    line = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-compile"]
    line += ["--only-binary=:all:", "--python-version", ".".join(map(str, python))]
    if architecture.is_foreign:
        line += [f"--platform={name}_{architecture.machine}" for name in ("manylinux2014", "manylinux_2_28")]
    line += ["--target", str(target), *_REQUIREMENTS]
    _run(line)
    _compile(python, target)
    return target


def _compile(python: tuple[int, int], directory: Path) -> None:
    """Under emulation a module takes long to compile; with another Python here than there it is done there."""
    if sys.version_info[:2] == python:
        compileall.compile_dir(directory, quiet=2, stripdir=str(directory), prependdir=str(_site(python)))


def _run(line: list[str]) -> None:
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(line, stdout=output, stderr=subprocess.STDOUT, timeout=600, check=False)
        output.seek(0)
        if done.returncode != 0:
            missing(f"Python packages for a machine ({output.read().decode(errors='replace').strip()[-500:]})")
