"""Files that are not what they were: code of another build, and files that have grown."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from harness import engine
from harness.events import ProcessWatch, become_subreaper, time_limit_s
from harness.skips import missing

pytestmark = pytest.mark.root

_SOURCE = """
#include <stdlib.h>
#include <unistd.h>
const char filler[4 << 20] = {1};
__attribute__((used)) int answer(void) { return ANSWER; }
int main(int argc, char **argv)
{
    if (write(1, "r", 1) == 1)
        close(atoi(argv[1])); /* the end of a pipe: the test goes on */
    for (;;)
        pause();
    return argc;
}
"""
_BUILDS = {"build id": "-Wl,--build-id", "none": "-Wl,--build-id=none"}


def _build(base: Path, build: str, answer: int) -> Path:
    cc = shutil.which("cc") or missing("a C compiler (cc)")
    source = base / "program.c"
    source.write_text(_SOURCE)
    made = base / f"program-{answer}"
    # Another constant in the code, and the same size.
    line = [cc, "-O1", _BUILDS[build], f"-DANSWER={answer}", "-o", str(made), str(source)]
    subprocess.run(line, check=True)
    return made


@contextmanager
def _running(program: Path, output: Path, mode: str) -> Iterator[int]:
    """The program, which leads a session and has written its first byte to *output*; its pid."""
    become_subreaper()
    reader, writer = os.pipe()
    with output.open(mode) as stream:
        child = subprocess.Popen(
            [str(program), str(writer)], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, pass_fds=[writer],
            start_new_session=True, cwd="/",
        )  # fmt: skip
    os.close(writer)
    with os.fdopen(reader, "rb") as end:
        end.read()
    try:
        yield child.pid
    finally:
        _end(child.pid)
        child.wait()


def _end(pid: int) -> None:
    try:
        with ProcessWatch(pid) as watch:
            os.kill(pid, signal.SIGKILL)
            watch.wait_ended(time_limit_s(10))
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def _dump(pid: int, images: Path) -> None:
    images.mkdir()
    engine.dump(pid, images)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


@pytest.mark.parametrize("build", _BUILDS)
def test_code_of_another_build_is_refused_by_name(tmp_path: Path, build: str) -> None:
    first, second = _build(tmp_path, build, 11), _build(tmp_path, build, 22)
    assert first.stat().st_size == second.stat().st_size
    program = Path(shutil.copy2(first, tmp_path / "program"))
    with _running(program, tmp_path / "out", "wb") as pid:
        _dump(pid, tmp_path / "images")
        program.unlink()
        shutil.copy(second, program)
        with pytest.raises(engine.EngineError, match=rf"{program} (has another build ID|is another file)"):
            engine.restore(tmp_path / "images")
        engine.restore(tmp_path / "images", options=["--file-validation", "filesize"])
        _end(pid)
        # The same build in a file that was written anew is the same.
        program.unlink()
        shutil.copy(first, program)
        engine.restore(tmp_path / "images")


def test_code_whose_build_id_is_gone_is_refused(tmp_path: Path) -> None:
    first = _build(tmp_path, "build id", 11)
    program = Path(shutil.copy2(first, tmp_path / "program"))
    with _running(program, tmp_path / "out", "wb") as pid:
        _dump(pid, tmp_path / "images")
        data = bytearray(first.read_bytes())
        at = data.index(b"GNU\0", data.index(b"\x14\0\0\0\x03\0\0\0"))
        data[at - 4] = 9
        program.unlink()
        program.write_bytes(data)
        program.chmod(0o755)
        with pytest.raises(engine.EngineError, match="no build ID any more"):
            engine.restore(tmp_path / "images")


@pytest.mark.parametrize("mode", ["wb", "ab"])
def test_a_file_that_has_grown_is_cut_if_that_is_wanted(tmp_path: Path, mode: str) -> None:
    program, out = _build(tmp_path, "build id", 11), tmp_path / "out"
    with _running(program, out, mode) as pid:
        _dump(pid, tmp_path / "images")
        former = out.read_bytes()
        out.write_bytes(former + b"and more")
        if mode == "wb":
            with pytest.raises(engine.EngineError, match=f"{out} has bad size.*--rewind-files"):
                engine.restore(tmp_path / "images")
        with pytest.raises(engine.EngineError):
            engine.restore(tmp_path / "images", options=["--rewind-files", "--action-script", "/bin/false"])
        assert out.read_bytes() == former + b"and more", "nothing was restored, and so nothing is cut"
        engine.restore(tmp_path / "images", options=["--rewind-files"])
        assert out.read_bytes() == former
        assert "was cut from" in (tmp_path / "images" / "restore.log").read_text()
