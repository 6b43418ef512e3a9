"""What torpor itself lacks, or the machine does, is named before anything is stopped or made."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import engine
from harness.workload import Workload

pytestmark = pytest.mark.root

#: Start a copy of the program, at the place that the environment says.
_COPY = 'cp "$1" PLACE/program; shift; exec PLACE/program "$@"'


def test_too_few_descriptors() -> None:
    """A hard limit that may be raised is; one that may not is named, and so is what is needed."""
    with Workload.start("many", ("eventfd", "600")) as workload:
        workload.wait_ready()
        workload.dump()
        with engine.using(["prlimit", "--nofile=256:256", "--", *engine.command()]):
            try:
                workload.restore()
            except engine.EngineError as error:
                assert "RLIMIT_NOFILE" in error.log
                assert "Invalid argument" not in error.log
        if not workload.processes():
            workload.restore()
        workload.expect_pass()


def test_a_missing_capability() -> None:
    with Workload.start("counter") as workload:
        workload.wait_ready()
        workload.dump()
        with engine.using(["setpriv", "--bounding-set", "-sys_time,-net_raw", "--", *engine.command()]):
            with pytest.raises(engine.EngineError, match="CAP_NET_RAW, CAP_SYS_TIME, and torpor has not"):
                workload.restore()
        workload.restore()
        workload.expect_pass()


def test_an_executable_that_may_not_be_executed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with Workload.start("counter", prefix=("sh", "-c", _COPY.replace("PLACE", str(tmp_path)), "sh")) as workload:
        workload.wait_ready()
        (tmp_path / "program").chmod(0o644)
        with pytest.raises(engine.EngineError, match="may not be executed any more"):
            workload.dump()
        (tmp_path / "program").chmod(0o755)
        workload.dump()
        workload.restore()
        workload.expect_pass()


@contextmanager
def _mounted(place: Path) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "torpor-test", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def _remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)


def test_a_program_on_a_noexec_mount(tmp_path: Path) -> None:
    with _mounted(tmp_path / "mounted") as place:
        with Workload.start("counter", prefix=("sh", "-c", _COPY.replace("PLACE", str(place)), "sh")) as workload:
            workload.wait_ready()
            _remount(place, "noexec")
            with pytest.raises(engine.EngineError, match="noexec mount"):
                workload.dump()
            _remount(place, "exec")
            workload.dump()
            _remount(place, "noexec")
            with pytest.raises(engine.EngineError, match=f"{place}/program is mapped as code .* noexec mount"):
                workload.restore()
            _remount(place, "exec")
            workload.restore()
            workload.expect_pass()
            assert os.path.exists(place / "program")
