"""All tests in parts (tools/shards.py): none is left out, none that is to be alone is beside another, all is told."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from harness.events import time_limit_s
from harness.skips import need_mounted_root

_SETTINGS = '[tool.pytest.ini_options]\nmarkers = ["alone: alone"]\naddopts = ["--import-mode=importlib", "-ra"]\n'
#: Opening a FIFO waits for who opens the other end.
_MEETS = """
import signal
def test_meets():
    signal.alarm({limit_s})
    open({fifo!r}, {mode!r}).close()
    signal.alarm(0)
    open({done!r}, "w").close()
"""
_ALONE = """
import os, pytest
@pytest.mark.alone
def test_alone():
    assert os.path.exists({one!r}) and os.path.exists({two!r})
"""


@pytest.fixture(scope="module")
def shards(repository: Path) -> ModuleType:
    path = repository / "tools/shards.py"
    spec = importlib.util.spec_from_file_location("shards", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["shards"] = module
    spec.loader.exec_module(module)
    return module


def _tree(directory: Path, repository: Path, **files: str) -> Path:
    """A work tree with a test file in each folder; the script in it."""
    (directory / "tools").mkdir()
    (directory / "pyproject.toml").write_text(_SETTINGS)
    for folder, text in files.items():
        (directory / "tests" / folder).mkdir(parents=True)
        (directory / "tests" / folder / f"test_{folder}.py").write_text(text)
    return Path(shutil.copy(repository / "tools/shards.py", directory / "tools"))


def _run(script: Path, *words: str) -> tuple[int, list[str]]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TORPOR_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, script, *words], capture_output=True, text=True, check=False, env=environment,
        timeout=time_limit_s(120),
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines()


def test_every_file_is_in_one_part(shards: ModuleType, repository: Path) -> None:
    parts = shards.parts_of(repository / "tests")
    named = [Path(path) for part in parts for path in part.paths]
    counts = Counter(file for path in named for file in (path.rglob("test_*.py") if path.is_dir() else [path]))
    there = set((repository / "tests").rglob("test_*.py"))
    assert counts == dict.fromkeys(there, 1)
    assert len({part.name for part in parts}) == len(parts)
    # A folder that is dealt out is there, long enough to be, and has all of its files collected.
    for folder, n in shards.DEALT.items():
        assert sum(part.name.startswith(f"{folder}, ") for part in parts) == n
        conftests = (repository / "tests" / folder).rglob("conftest.py")
        assert not any("ignore_collect" in path.read_text() for path in conftests)


def test_two_run_side_by_side_and_one_alone(tmp_path: Path, repository: Path) -> None:
    one, two, fifo = (str(tmp_path / name) for name in ("one", "two", "fifo"))
    os.mkfifo(fifo)
    limit_s = int(time_limit_s(60))
    script = _tree(
        tmp_path, repository,
        # The first folder, which would be the first to run.
        alone=_ALONE.format(one=one, two=two),
        one=_MEETS.format(fifo=fifo, mode="r", done=one, limit_s=limit_s),
        two=_MEETS.format(fifo=fifo, mode="w", done=two, limit_s=limit_s),
    )  # fmt: skip
    status, lines = _run(script, "-j", "2")
    assert status == 0, lines
    assert lines[-1].startswith("3 passed in ")


def test_what_fails_is_named_at_the_end(tmp_path: Path, repository: Path) -> None:
    script = _tree(
        tmp_path, repository,
        bad="def test_good(): pass\ndef test_bad(): assert 1 == 2\n",
        broken="import nothing_of_this_name\n",
        fine="def test_fine(): pass\n",
        killed="import os\ndef test_fine(): pass\ndef test_killed(): os.kill(os.getpid(), 9)\n",
    )  # fmt: skip
    status, lines = _run(script, "-j", "2")
    assert status == 128 + signal.SIGKILL
    end = lines[lines.index("######## in all") :]
    assert any(line.startswith("FAILED tests/bad/test_bad.py::test_bad") for line in end)
    assert any(line.startswith("ERROR tests/broken/test_broken.py") for line in end)
    assert "ERROR killed: its process ended with -9" in end
    # What cannot be read is met twice, and told once.
    assert end[-1].startswith("1 failed, 2 errors, 2 passed in ")
    assert sum(line.startswith("ERROR tests/broken/") for line in end) == 1
    # What a part has printed stands together.
    begin = next(at for at, line in enumerate(lines) if line.startswith("######## bad: "))
    assert any("assert 1 == 2" in line for line in lines[begin : begin + 20])


def test_where_nothing_is_there_to_run_nothing_is_well(tmp_path: Path, repository: Path) -> None:
    script = _tree(tmp_path, repository, one="", two="import pytest\n@pytest.mark.alone\ndef test_two(): pass\n")
    assert _run(script, "one")[0] == pytest.ExitCode.NO_TESTS_COLLECTED
    status, lines = _run(script)
    assert (status, lines[-1].partition(" in ")[0]) == (0, "1 passed")


@pytest.mark.root
def test_they_do_not_see_what_others_mount(tmp_path: Path, repository: Path) -> None:
    need_mounted_root()
    ours = os.readlink("/proc/self/ns/mnt")
    text = f"import os\ndef test_it(): assert (os.readlink('/proc/self/ns/mnt') == {ours!r}) == %s\n"
    alone = "import pytest\npytestmark = pytest.mark.alone\n"
    script = _tree(tmp_path, repository, one=text % False, two=alone + text % True)
    status, lines = _run(script, "-j", "2")
    assert (status, lines[-1].partition(" in ")[0]) == (0, "2 passed"), lines


def test_a_folder_leaves_out_what_it_wants(tmp_path: Path, repository: Path) -> None:
    script = _tree(tmp_path, repository, one="def test_one(): pass\n", other="def test_other(): assert False\n")
    ignore = (
        "def pytest_ignore_collect(collection_path):\n    return collection_path.name.startswith('test_') or None\n"
    )
    (tmp_path / "tests/other/conftest.py").write_text(ignore)
    status, lines = _run(script)
    assert (status, lines[-1].partition(" in ")[0]) == (0, "1 passed"), lines


@pytest.mark.parametrize("prefix", [[], ["sh", "-c", "trap '' INT; exec \"$@\"", "-"]], ids=["", "background"])
def test_ended_itself_it_leaves_nobody(tmp_path: Path, repository: Path, prefix: list[str]) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    text = "import os, signal\ndef test_one():\n    open({told!r}, 'w').write(str(os.getpid()))\n    signal.pause()\n"
    script = _tree(tmp_path, repository, one=text.format(told=str(told)))
    with subprocess.Popen([*prefix, sys.executable, script], stdout=subprocess.PIPE, text=True) as process:
        pid = int(told.read_text())
        process.terminate()
        said, _ = process.communicate(timeout=time_limit_s(60))
    assert process.returncode == 128 + signal.SIGTERM
    assert "nothing in " in said.splitlines()[-1]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
