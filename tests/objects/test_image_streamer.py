"""``--stream``: images go to, and come from, whoever listens in the images directory; if he fails nobody is harmed."""

from __future__ import annotations

import subprocess

import pytest

from harness import engine
from harness.streamer import Streamer
from harness.workload import Workload

pytestmark = pytest.mark.root


@pytest.mark.parametrize("name", ["private_memory", "memfd", "ghost_files"])
def test_there_and_back(name: str) -> None:
    with Workload.start(name) as workload:
        workload.wait_ready()
        images: dict[str, bytes] = {}
        with Streamer(workload.images, images):
            workload.dump(options=("--stream",))
        here = {path.name for path in workload.images.iterdir()}
        assert not [each for each in here if each.endswith(".img")], "nothing is written here"
        assert "stats-dump" in here and images
        with Streamer(workload.images, images, serves=True) as streamer:
            workload.restore(options=("--stream",))
        assert len(streamer.asked) == len({*streamer.asked}), "an image is asked for once"
        workload.expect_pass()


def test_a_network_namespace_is_found_without_a_list() -> None:
    with Workload.start_fresh("private_memory") as workload:
        workload.wait_ready()
        images: dict[str, bytes] = {}
        with Streamer(workload.images, images):
            workload.dump(options=("--stream",))
        del images["torpor.manifest"]
        with Streamer(workload.images, images, serves=True) as streamer:
            workload.restore(options=("--stream",))
        assert [each for each in streamer.asked if each.startswith("netns-")]
        workload.expect_pass()


def test_images_of_a_pre_dump_go_there_as_well() -> None:
    with Workload.start("private_memory") as workload:
        workload.wait_ready()
        images: dict[str, bytes] = {}
        with Streamer(workload.images, images):
            line = [*engine.command(), "pre-dump", "-t", str(workload.pid), "-D", str(workload.images), "--stream"]
            subprocess.run([*line, "-o", "log"], check=True)
        assert any(each.startswith("pages-") for each in images)
        workload.expect_pass()


@pytest.mark.parametrize("command", ["dump", "restore"])
def test_without_a_streamer(command: str) -> None:
    with Workload.start("private_memory") as workload:
        workload.wait_ready()
        with pytest.raises(engine.EngineError, match=r"nobody listens at .*streamer-.*criu-image-streamer"):
            if command == "dump":
                workload.dump(options=("--stream",))
            else:
                engine.restore(workload.images, options=("--stream",))
        workload.expect_pass()


def test_a_streamer_that_dies_leaves_the_tree_running() -> None:
    with Workload.start("private_memory") as workload:
        workload.wait_ready()
        with Streamer(workload.images, {}, most=10), pytest.raises(engine.EngineError, match=r"has gone"):
            workload.dump(options=("--stream",))
        workload.expect_pass()


@pytest.mark.parametrize("how", ["cut off", "another name"])
def test_what_a_streamer_gives_is_not_believed(how: str) -> None:
    with Workload.start("private_memory") as workload:
        workload.wait_ready()
        images: dict[str, bytes] = {}
        with Streamer(workload.images, images):
            workload.dump(options=("--stream",))
        if how == "another name":
            images["inventory.img"], images["pstree.img"] = images["pstree.img"], images["inventory.img"]
        most = 5000 if how == "cut off" else None
        with Streamer(workload.images, dict(images), serves=True, most=most), pytest.raises(engine.EngineError):
            workload.restore(options=("--stream",))
        with Streamer(workload.images, images, serves=True):
            if how == "cut off":
                workload.restore(options=("--stream",))
                workload.expect_pass()
