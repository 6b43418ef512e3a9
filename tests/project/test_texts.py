"""What stands in the repository: no paths or hosts of the machine it was written on, and no file too large to read."""

import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from harness.skips import missing

MAX_LINES = 800
MAX_LINES_OF = {"ARCHITECTURE.md": 300}

#: Not written here by hand, so of any length: the licence, tables that are data, and pages that are made.
ANY_LENGTH = re.compile(
    r"LICENSE$|\.tsv$|\.lock$|messages\.pyi$|schema/criu\.txt$|_descriptors\.py$|internals/objects\.md$"
)

# A pattern with a one-letter class in it does not match its own text: this file needs no exception from its own tests.

#: Paths that exist on one developer's machine only.
MACHINE_PATHS = re.compile(
    r"(?<![\w.~-])/wor[k]/|/var/tm[p]/(?:peer|venv|cri[tu]|zdtm)|/op[t]/(?:pypi|wheels)|/roo[t]/\.pyenv"
)

#: Anything that points an installation at a particular registry or mirror.
REGISTRIES = re.compile(
    r"--(?:extra-)?index-ur[l]|--find-link[s]|PIP_INDEX_UR[L]|NPM_CONFIG_REGISTR[Y]|GOPROX[Y]=", re.IGNORECASE
)

#: The hosts that texts and sources may link to.
HOSTS = frozenset(
    {
        "apache.org",
        "containers.dev",
        "criu.org",
        "debian.org",
        "docs.docker.com",
        "docs.podman.io",
        "docs.python.org",
        "example.com",
        "example.org",
        "github.com",
        "kernel.org",
        "keepachangelog.com",
        "localhost",
        "lwn.net",
        "man7.org",
        "opencontainers.org",
        "peps.python.org",
        "protobuf.dev",
        "pypi.org",
        "rfc-editor.org",
        "semver.org",
    }
)
URL_HOST = re.compile(r"\b(?:https?|ftp|git|ssh)://(?:[^/\s@]*@)?([A-Za-z0-9.-]+)")


def tracked_texts(repository: Path) -> dict[str, str]:
    """Path and contents of every text file that git tracks (or would, if it were added)."""
    if shutil.which("git") is None:
        missing("the command git (Debian: git)")
    if not (repository / ".git").exists():
        missing("a git checkout: this is an unpacked archive")
    line = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(line, cwd=repository, capture_output=True, text=True, check=True).stdout.split("\0")
    texts = {}
    for name in names:
        path = repository / name
        if name and path.is_file() and not path.is_symlink():
            # What is not UTF-8 is an image or the like, kept for a test.
            with suppress(UnicodeDecodeError):
                texts[name] = path.read_bytes().decode()
    assert texts
    return texts


def host_is_known(host: str) -> bool:
    if re.fullmatch(r"[0-9.]+", host):  # an address in a test or an example
        return True
    parts = host.lower().strip(".").split(".")
    return any(".".join(parts[at:]) in HOSTS for at in range(len(parts)))


def lines_matching(texts: dict[str, str], pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in texts.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]


def test_no_path_of_the_machine_it_was_written_on(repository: Path) -> None:
    found = lines_matching(tracked_texts(repository), MACHINE_PATHS)
    assert not found, "\n".join(found)


def test_no_registry_is_named(repository: Path) -> None:
    found = lines_matching(tracked_texts(repository), REGISTRIES)
    assert not found, "\n".join(found)


def test_links_go_to_known_hosts_only(repository: Path) -> None:
    texts = tracked_texts(repository)
    del texts["LICENSE"]
    found = [
        f"{name}: {host}" for name, text in texts.items() for host in URL_HOST.findall(text) if not host_is_known(host)
    ]
    assert not found, "\n".join(["not in HOSTS of this file:", *found])


def test_files_are_small_enough_to_read(repository: Path) -> None:
    """The longest ones are shown with `pytest -rP`."""
    lengths = {
        name: len(text.splitlines()) for name, text in tracked_texts(repository).items() if not ANY_LENGTH.search(name)
    }
    for name, n_lines in sorted(lengths.items(), key=lambda item: -item[1])[:10]:
        print(f"{n_lines:5} {name}")
    too_long = [f"{name}: {n} lines" for name, n in lengths.items() if n > MAX_LINES_OF.get(name, MAX_LINES)]
    assert not too_long, "\n".join(too_long)


def test_the_patterns_find_what_they_are_for() -> None:
    machine_path = "/".join(["", "work", "shared"])
    assert MACHINE_PATHS.search(f"see {machine_path}") and not MACHINE_PATHS.search(f"a/frame{machine_path[1:]}")
    assert host_is_known("www.kernel.org") and host_is_known("127.0.0.1") and not host_is_known("mirror.corp.internal")
    assert URL_HOST.findall("https" + "://user:secret@mirror.corp.internal/simple") == ["mirror.corp.internal"]
