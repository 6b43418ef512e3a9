"""Which container engines are here, which criu each of them will run, and what does not work and why.

Nothing is changed, and no container is touched.  An engine is asked by its own command; a criu by ``criu --version`` in
the bare environment that a runtime gives it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torpor.base.errors import EngineError
from torpor.base.fds import only_files
from torpor.containers.commands import SERVICE_PATH, command_of, run

CONFIG_FILES = ("/etc/criu/default.conf", "/etc/criu/runc.conf", "/etc/criu/crun.conf", "~/.criu/default.conf")
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Criu:
    """A criu command: its place, the first lines of what it says of itself, and how long it took to say it."""

    path: str
    version: str
    is_torpor: bool
    start_s: float


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that does not work, and what to do."""

    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Report:
    """One engine.  ``criu`` is what it will run; None where it finds none."""

    engine: str
    version: str
    details: tuple[str, ...]
    criu: Criu | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file of options that every criu of this machine obeys, and the options in it."""

    path: str
    options: tuple[str, ...]


def survey() -> list[Report]:
    """Every engine that is here."""
    with ThreadPoolExecutor(len(_ENGINES)) as pool:
        found = pool.map(lambda report: report(), _ENGINES.values())
        return [report for report in found if report is not None]


def criu_for(engine: str) -> Criu | None:
    """The criu that *engine* will run; None if it finds none."""
    daemon = {"docker": "dockerd", "containerd": "containerd"}.get(engine)
    return criu_on(_path_of(daemon) if daemon else os.environ.get("PATH") or SERVICE_PATH)


def problems_of_runtime(name: str) -> list[Problem]:
    """What keeps a runtime from checkpointing anything."""
    try:
        said = run(name, "--version", timeout_s=_TIMEOUT_S) if name in ("runc", "crun") else "+CRIU"
    except EngineError as error:
        return [Problem(str(error), "run it by hand")]
    return list(_runtime_problems(name, said)) if name != "lxc" else []


def config_files() -> Iterator[ConfigFile]:
    """The files of options that are there."""
    for name in (*CONFIG_FILES, os.environ.get("CRIU_CONFIG_FILE", "")):
        with suppress(OSError):
            place = Path(name).expanduser()
            with open(place, encoding="utf-8", errors="replace", opener=only_files) as stream:
                lines = stream.read().splitlines()
            options = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
            yield ConfigFile(name, tuple(options))


def criu_on(path: str) -> Criu | None:
    """The criu that is found first on *path*, started as a runtime would start it."""
    found = shutil.which("criu", path=path)
    if found is None:
        return None
    start = time.monotonic()
    try:
        said = subprocess.run(
            [found, "--version"],
            env={"PATH": path},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Criu(found, f"does not start: {error}", False, time.monotonic() - start)
    lines = said.stdout.decode(errors="replace").split("\n")
    if said.returncode:
        lines = [f"does not start: {said.stderr.decode(errors='replace').strip()[:200]}"]
    version = ", ".join(line.strip() for line in lines if line.strip())
    return Criu(found, version, "torpor" in version.lower(), time.monotonic() - start)


# -- what is asked of each engine -----------------------------------------------------------------------------------


def _podman() -> Report | None:
    if not command_of("podman"):
        return None
    problems: list[Problem] = []
    try:
        info = json.loads(run("podman", "info", "--format", "json", timeout_s=_TIMEOUT_S))
        host = info["host"]
        runtime = host["ociRuntime"]
        details = [f"runtime {runtime['name']} ({runtime['path']}), network {host.get('networkBackend', '?')}"]
        version = str(info.get("version", {}).get("Version") or "?")
        problems += _runtime_problems(str(runtime["name"]), str(runtime.get("version", "")))
        if host.get("security", {}).get("rootless"):
            problems.append(Problem("rootless containers cannot be checkpointed by Podman", "run podman as root"))
    except (EngineError, ValueError, LookupError, TypeError) as error:
        return _report("podman", "?", [], [Problem(f"podman info: {error}", "run it by hand")])
    return _report("podman", version, details, problems)


def _runtime_problems(name: str, version: str) -> Iterator[Problem]:
    if name == "crun" and "+CRIU" not in version:
        yield Problem(
            "the runtime crun was built without checkpoint support",
            'use runc: `runtime = "runc"` below [engine] in /etc/containers/containers.conf, or podman --runtime runc',
        )
    elif name == "crun" and not _has_library("libcriu.so"):
        yield Problem("the runtime crun loads libcriu.so.2, which is not here", "install libcriu2, or use runc")
    elif name not in ("runc", "crun"):
        yield Problem(f"the runtime {name} is not known to checkpoint", "use runc or crun")


def _has_library(name: str) -> bool:
    places = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib")
    return any(next(Path(place).glob(f"**/{name}*"), None) is not None for place in places if Path(place).is_dir())


def _runc() -> Report | None:
    return _runtime("runc")


def _crun() -> Report | None:
    return _runtime("crun")


def _runtime(name: str) -> Report | None:
    if not command_of(name):
        return None
    try:
        said = run(name, "--version", timeout_s=_TIMEOUT_S)
    except EngineError as error:
        return _report(name, "?", [], [Problem(str(error), "run it by hand")])
    version = re.search(r"version (\S+)", said)
    return _report(name, version[1] if version else "?", [], list(_runtime_problems(name, said)))


def _docker() -> Report | None:
    if not command_of("docker"):
        return None
    problems = []
    details = []
    client = server = None
    with suppress(EngineError):
        client = re.search(r"version (\S+?),?\s", run("docker", "--version", timeout_s=_TIMEOUT_S) + " ")
    try:
        server = json.loads(run("docker", "version", "--format", "{{json .Server}}", timeout_s=_TIMEOUT_S))
    except (EngineError, ValueError):
        problems.append(Problem("no Docker daemon answers", "start it: systemctl start docker"))
    if isinstance(server, dict):
        details.append(f"daemon {server.get('Version', '?')}")
        if not server.get("Experimental"):
            problems.append(
                Problem(
                    "the daemon has checkpoints switched off",
                    '"experimental": true in /etc/docker/daemon.json, then systemctl restart docker',
                )
            )
    return _report("docker", client[1] if client else "?", details, problems)


def _containerd() -> Report | None:
    if not command_of("ctr"):
        return None
    try:
        said = run("ctr", "--version", timeout_s=_TIMEOUT_S)
    except EngineError as error:
        return _report("containerd", "?", [], [Problem(str(error), "run `ctr --version` by hand")])
    problems = []
    if not Path("/run/containerd/containerd.sock").exists():
        problems.append(Problem("containerd does not run", "start it: systemctl start containerd"))
    return _report("containerd", said.split()[-1] if said.split() else "?", [], problems)


def _lxc() -> Report | None:
    if not command_of("lxc-checkpoint"):
        return None
    version = "?"
    with suppress(EngineError, IndexError):
        version = run("lxc-checkpoint", "--version", timeout_s=_TIMEOUT_S).split()[0]
    return _report("lxc", version, [], [])


_ENGINES: dict[str, Callable[[], Report | None]] = {
    "podman": _podman,
    "runc": _runc,
    "crun": _crun,
    "docker": _docker,
    "containerd": _containerd,
    "lxc": _lxc,
}


def _report(engine: str, version: str, details: list[str], problems: list[Problem], path: str | None = None) -> Report:
    criu = criu_for(engine)
    if criu is None:
        problems.append(Problem("it finds no criu", "torpor setup, as root"))
    elif not criu.is_torpor:
        problems.append(Problem(f"it runs {criu.path}, which is not torpor's", "torpor setup, as root"))
    return Report(engine, version, tuple(details), criu, tuple(problems))


def _path_of(daemon: str) -> str:
    """PATH of a service that runs, as far as we may read it; otherwise what services get."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            if (entry / "comm").read_text(errors="replace").strip() != daemon:
                continue
            for variable in (entry / "environ").read_bytes().split(b"\0"):
                if variable.startswith(b"PATH="):
                    return variable.removeprefix(b"PATH=").decode(errors="replace")
    return SERVICE_PATH
