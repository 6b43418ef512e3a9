"""runc alone: checkpoint and restore as its manual pages have them."""

import json
import os
import select
import subprocess
from pathlib import Path

import pytest

from harness.events import time_limit_s
from harness.peers import LOOPBACK, free_port, waiting
from harness.runc import COUNTER, Container, RuncError
from torpor.images import kinds
from torpor.images.store import load_one
from torpor.images.stores.directory import DirStore

pytestmark = [pytest.mark.root, pytest.mark.real]
_COUNT = ["sh", "-c", COUNTER]


def test_a_container_counts_on_time_after_time() -> None:
    with Container(_COUNT) as container:
        container.run()
        for _ in range(3):
            before = container.wait_counting()
            container.checkpoint()
            assert container.status() == ""
            container.restore()
            assert container.wait_counting() > before
        assert container.exec("readlink", "/proc/1/exe") == "/bin/busybox"


def test_leave_running() -> None:
    with Container(_COUNT) as container:
        container.run()
        container.wait_counting()
        container.checkpoint("--leave-running")
        assert container.status() == "running"
        seen = container.wait_counting()
        container.runc("delete", "--force", container.name)
        container.restore()
        assert container.wait_counting() > 0
        assert container.count() < seen + 1000


def _say(master: int, line: str, until: str) -> str:
    """Type a line and read what comes back, up to a text."""
    os.write(master, line.encode() + b"\n")
    heard = ""
    while until not in heard:
        if not select.select([master], [], [], time_limit_s(20))[0]:
            raise TimeoutError(f"{until!r} did not come: {heard!r}")
        heard += os.read(master, 4096).decode(errors="replace")
    return heard


def test_a_shell_on_a_terminal() -> None:
    with Container(["sh"], terminal=True) as container:
        container.run()
        master = container.console()
        try:
            _say(master, "x=kept; stty rows 33 cols 99; echo rea''dy", "ready")
            for _ in range(2):
                container.checkpoint()
                os.close(master)
                container.restore()
                master = container.console()
                assert "33 99 kept" in _say(master, "echo $(stty size) $x; echo do''ne", "done")
            assert "/dev/pts/0" in _say(master, "tty; echo do''ne", "done")
        finally:
            os.close(master)


def test_into_another_network_namespace(tmp_path: Path) -> None:
    name = f"torpor-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        with Container(_COUNT) as container:
            for namespace in container.config["linux"]["namespaces"]:
                if namespace["type"] == "network":
                    namespace["path"] = f"/run/netns/{name}"
            container.run()
            container.wait_counting()
            container.checkpoint()
            container.restore()
            container.wait_counting()
            wanted = os.stat(f"/run/netns/{name}").st_ino
            assert os.stat(f"/proc/{container.pid}/ns/net").st_ino == wanted
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_namespaces_of_another_container_are_joined() -> None:
    """As in a pod: the second container lives in the first one's."""
    with Container(["sleep", "1000"]) as first, Container(_COUNT) as second:
        first.run()
        shared = ("ipc", "uts", "network")
        for namespace in second.config["linux"]["namespaces"]:
            if namespace["type"] in shared:
                namespace["path"] = f"/proc/{first.pid}/ns/{namespace['type'].replace('network', 'net')}"
        second.config["hostname"] = ""
        second.run()
        second.wait_counting()
        second.checkpoint()
        second.restore()
        second.wait_counting()
        for link in ("ipc", "uts", "net"):
            assert os.readlink(f"/proc/{first.pid}/ns/{link}") == os.readlink(f"/proc/{second.pid}/ns/{link}")


def test_the_containers_own_configuration_file(tmp_path: Path) -> None:
    config = tmp_path / "mine.conf"
    config.write_text("log-file=mine.log\n")
    with Container(_COUNT) as container:
        container.config["annotations"] = {"org.criu.config": str(config)}
        container.run()
        container.wait_counting()
        container.checkpoint()
        assert (container.base / "mine.log").exists() and not (container.base / "dump.log").exists()
        container.restore()
        container.wait_counting()


def test_pre_dumps_and_a_checkpoint_that_leans_on_them() -> None:
    """runc asks for memory tracking first, and gives the parent's path from the images on."""
    with Container(_COUNT) as container:
        container.run()
        container.wait_counting()
        container.checkpoint("--pre-dump")
        container.wait_counting()
        container.images.rename(container.base / "parent")
        container.checkpoint("--parent-path", "../parent")
        with DirStore(container.images) as store:
            assert store.parent() is not None
        with DirStore(container.base) as store:
            stats = load_one(store, kinds.STATS, "dump").dump
        assert stats.pages_skipped_parent and stats.pages_written
        container.restore()
        container.wait_counting()


def test_a_full_disk(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)], check=True)
    try:
        with Container(
            ["sh", "-c", f"x=$(dd if=/dev/urandom bs=1k count=400 2>/dev/null | tr -d '\\0'); {COUNTER}"]
        ) as it:
            (it.rootfs / "bin/tr").symlink_to("busybox")
            it.run()
            it.wait_counting()
            words = ["checkpoint", "--image-path", str(tmp_path / "images"), "--work-path", str(it.base), it.name]
            failed = it.runc(*words, check=False)
            assert failed.returncode != 0
            assert "No space left on device" in (it.base / "dump.log").read_text()
            assert it.status() == "running"
            it.wait_counting()
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_a_log_that_was_opened_outside_is_refused_by_name(tmp_path: Path) -> None:
    log = tmp_path / "outside.log"
    with Container(_COUNT) as container, log.open("w") as stream:
        container.run(stdout=stream.fileno())
        container.wait_counting()
        with pytest.raises(RuncError, match="opened outside and handed in"):
            container.checkpoint()
        container.wait_counting()


def test_images_that_are_not_there() -> None:
    with Container(_COUNT) as container:
        container.run()
        container.wait_counting()
        container.checkpoint()
        (container.images / "pstree.img").unlink()
        failed = container.runc(*container.restore_words(), container.name, check=False)
        assert failed.returncode != 0
        text = (container.base / "restore.log").read_text()
        assert "pstree.img" in text and "Traceback" not in text
        assert json.loads(container.runc("list", "--format", "json").stdout or "null") in (None, [])


def test_memory_that_comes_from_the_container_that_was_checkpointed() -> None:
    """runc checkpoint --lazy-pages, and a restore under another name while its processes are still there, stopped."""
    port = free_port()
    with Container(_COUNT) as container:
        container.run()
        before = container.wait_counting()
        ready, told = os.pipe()
        giving = container.start_command(
            "checkpoint", "--lazy-pages", "--page-server", f"0.0.0.0:{port}", "--status-fd", str(told),
            "--work-path", str(container.base),
            "--image-path", str(container.images), container.name, pass_fds=[told],
        )  # fmt: skip
        os.close(told)
        with open(ready, "rb", buffering=0) as stream:
            assert stream.read(1) == b"\0", container.logs()
        words = ["lazy-pages", "--page-server", "--address", LOOPBACK, "--port", str(port), "-W", str(container.base)]
        with waiting(words, container.images) as bringing:
            container.name += "-there"
            container.restore("--lazy-pages")
            assert bringing.end() == 0, bringing.log
            assert giving.wait(time_limit_s(30)) == 0, container.logs()
            assert container.wait_counting() > before
