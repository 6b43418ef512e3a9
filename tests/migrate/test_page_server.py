"""Dumps whose pages go to a page server: there when they have been dumped, and not at all when that came to nothing."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import engine
from harness.engine import EngineError
from harness.events import time_limit_s
from harness.peers import LOOPBACK, Waiting, free_port, waiting
from harness.workload import Workload

pytestmark = pytest.mark.root


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def server(port: int, tmp_path: Path) -> Iterator[Waiting]:
    (tmp_path / "pages").mkdir()
    with waiting(["page-server", "--address", LOOPBACK, "--port", str(port)], tmp_path / "pages") as found:
        yield found


def options(port: int) -> list[str]:
    return ["--page-server", "--address", LOOPBACK, "--port", str(port)]


@pytest.mark.parametrize("name", ["private_memory", "shared_anonymous", "family", "copy_on_write", "threads"])
def test_pages_come_back_from_where_they_were_sent(name: str, server: Waiting, port: int, tmp_path: Path) -> None:
    with Workload.start(name) as workload:
        workload.wait_ready()
        workload.dump(options=options(port))
        assert server.end() == 0, server.log
        assert not list(workload.images.glob("pages-*"))
        for path in (tmp_path / "pages").glob("page*.img"):
            path.rename(workload.images / path.name)
        workload.restore()
        workload.expect_pass()


def test_server_and_dump_may_have_the_same_directory(port: int) -> None:
    with Workload.start("private_memory") as workload:
        workload.wait_ready()
        for _ in range(2):
            with waiting(["page-server", "--address", LOOPBACK, "--port", str(port)], workload.images) as server:
                workload.dump(options=options(port))
                assert server.end() == 0, server.log
            workload.restore()
        names = {path.name for path in workload.images.iterdir()}
        assert {each for each in names if each.startswith("pages-")} == {"pages-65537.img"}
        assert not [each for each in names if each.startswith(".torpor-")]
        workload.expect_pass()


@pytest.mark.parametrize("name", ["private_memory", "shared_anonymous"])
def test_what_the_server_has_no_images_of_before_is_sent_as_a_whole(name: str, port: int) -> None:
    """It has the directory of the dump, and has not been told which set is the one before, as the dump has."""
    with Workload.start(name) as workload:
        workload.wait_ready()
        first, second = (workload.base / each for each in "12")
        for images, more in ((first, ["--track-mem"]), (second, ["--track-mem", "--prev-images-dir", "../1"])):
            images.mkdir()
            with waiting(["page-server", "--address", LOOPBACK, "--port", str(port)], images) as server:
                line = [
                    *engine.command(),
                    "pre-dump",
                    "-t",
                    str(workload.pid),
                    "-D",
                    str(images),
                    *options(port),
                    *more,
                ]
                subprocess.run(line, check=True, timeout=time_limit_s(20))
                assert server.end() == 0, server.log
        with waiting(["page-server", "--address", LOOPBACK, "--port", str(port)], workload.images) as server:
            workload.dump(options=[*options(port), "--prev-images-dir", "../2"])
            assert server.end() == 0, server.log
        workload.restore()
        workload.expect_pass()


def test_a_set_keeps_the_parent_that_it_has(port: int, tmp_path: Path) -> None:
    """Until the pages have come, what lies there is the set that depends on it."""
    images = tmp_path / "images"
    for path in (images, tmp_path / "0", tmp_path / "1"):
        path.mkdir()
    (images / "parent").symlink_to("../0")
    line = [*engine.command(), "page-server", "--address", LOOPBACK, "--port", str(port), "-D", str(images)]
    done = subprocess.run(
        [*line, "--prev-images-dir", "../1"], capture_output=True, text=True, check=False, timeout=time_limit_s(20)
    )
    assert done.returncode == 1 and "its parent images are ../0 already, and not ../1" in done.stderr
    assert os.readlink(images / "parent") == "../0"


def test_without_the_pages_nothing_is_restored(server: Waiting, port: int) -> None:
    with Workload.start("private_memory") as workload:
        workload.wait_ready()
        workload.dump(options=options(port))
        assert server.end() == 0, server.log
        with pytest.raises(EngineError, match=r"pagemap-\d+\.img is not here: .*page server"):
            engine.restore(workload.images)


def test_a_dump_that_nobody_takes_pages_from_harms_nobody(port: int) -> None:
    with Workload.start("private_memory") as workload:
        workload.wait_ready()
        with pytest.raises(EngineError, match="no page server can be reached"):
            engine.dump(workload.pid, workload.images, options=options(port))
        assert not list(workload.images.glob("*.img"))
        workload.expect_pass()


def test_a_server_that_dies_leaves_the_tree_running(server: Waiting, port: int, tmp_path: Path) -> None:
    """Killed when the connection stands: the dump says so, and its tree goes on."""
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION != pre-dump ] || kill -9 {server.process.pid}\n")
    hook.chmod(0o700)
    with Workload.start("private_memory") as workload:
        workload.wait_ready()
        with pytest.raises(EngineError, match="the other end"):
            engine.dump(workload.pid, workload.images, options=[*options(port), "--action-script", str(hook)])
        assert not list(workload.images.glob("*.img"))
        workload.expect_pass()
    assert not [path for path in (tmp_path / "pages").iterdir() if path.suffix == ".img"]


def test_a_dump_that_fails_leaves_nothing_with_the_server(server: Waiting, port: int, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text("#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION != pre-dump ]\n")
    hook.chmod(0o700)
    with Workload.start("private_memory") as workload:
        workload.wait_ready()
        with pytest.raises(EngineError):
            engine.dump(workload.pid, workload.images, options=[*options(port), "--action-script", str(hook)])
        assert server.end() == 1
        assert "hung up before all pages had come" in server.log
        assert [path.name for path in (tmp_path / "pages").iterdir()] == ["page-server.log"]
        workload.expect_pass()


def test_in_the_background_it_tells_its_pid_and_takes_a_dump(port: int, tmp_path: Path) -> None:
    with Workload.start("private_memory") as workload:
        workload.wait_ready()
        pidfile = tmp_path / "pid"
        line = [*engine.command(), "page-server", "--daemon", "--pidfile", str(pidfile), "--address", LOOPBACK,
                "--port", str(port), "-D", str(workload.images)]  # fmt: skip
        subprocess.run(line, check=True)
        pid = int(pidfile.read_text())
        watch = os.pidfd_open(pid)
        workload.dump(options=options(port))
        # Like every orphan of the tests, it is ours to wait for.
        assert os.waitpid(pid, 0)[1] == 0
        os.close(watch)
        workload.restore()
        workload.expect_pass()


def test_it_can_be_interrupted_while_it_waits(server: Waiting) -> None:
    server.process.send_signal(signal.SIGTERM)
    assert server.end() == 128 + signal.SIGTERM
