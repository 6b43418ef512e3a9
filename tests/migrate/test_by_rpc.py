"""Page servers and pages that come later, as container runtimes ask for them."""

import os
from pathlib import Path

import pytest

from harness import rpc
from harness.events import ProcessWatch, time_limit_s
from harness.peers import LOOPBACK, free_port, waiting
from harness.workload import Workload
from torpor.images import messages as m

pytestmark = pytest.mark.root

_TYPE = m.criu_req_type


def directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def test_a_dump_to_a_page_server_of_the_same_client() -> None:
    """As runc does with --page-server, and CRIU's library with a child of its own."""
    with Workload.start("private_memory") as workload, rpc.worker() as serving:
        workload.wait_ready()
        images = directory(workload.images)
        ps = m.criu_page_server_info(address=LOOPBACK)
        opts = m.criu_opts(images_dir_fd=images, log_file="ps.log", log_level=4, ps=ps)
        answer = serving.ask(m.criu_req(type=_TYPE.PAGE_SERVER_CHLD, opts=opts, keep_open=True))
        assert answer.success and answer.ps.port, answer.cr_errmsg
        ps.port = answer.ps.port
        with rpc.worker() as dumping:
            opts = m.criu_opts(images_dir_fd=images, log_file="d.log", log_level=4, ps=ps, pid=workload.pid)
            done = dumping.ask(m.criu_req(type=_TYPE.DUMP, opts=opts))
            assert done.success, done.cr_errmsg
        ended = serving.ask(m.criu_req(type=_TYPE.WAIT_PID, pid=answer.ps.pid))
        assert ended.success and os.waitstatus_to_exitcode(ended.status) == 0
        os.close(images)
        workload.wait_gone()
        workload.restore()
        workload.expect_pass()


def test_a_page_server_that_is_a_child_ends_with_its_client(tmp_path: Path) -> None:
    """Nobody would know of it any more, and it would listen for ever."""
    with rpc.worker() as serving:
        images = directory(tmp_path)
        ps = m.criu_page_server_info(address=LOOPBACK)
        opts = m.criu_opts(images_dir_fd=images, log_file="ps.log", log_level=4, ps=ps)
        answer = serving.ask(m.criu_req(type=_TYPE.PAGE_SERVER_CHLD, opts=opts, keep_open=True))
        os.close(images)
        assert answer.success, answer.cr_errmsg
        watch = ProcessWatch(answer.ps.pid)
    assert watch.wait_ended(time_limit_s(20))
    watch.close()


def test_a_dump_that_gives_its_pages_later(tmp_path: Path) -> None:
    """As runc's --lazy-pages, which waits for a byte on status_fd and then restores elsewhere."""
    destination, port = tmp_path / "there", free_port()
    destination.mkdir()
    with Workload.start_fresh("later_memory") as workload, rpc.worker() as dumping:
        workload.wait_ready()
        images, (ready, told) = directory(workload.images), os.pipe()
        ps = m.criu_page_server_info(address="192.0.2.1", port=port)  # nobody listens there, and nobody is to
        opts = m.criu_opts(images_dir_fd=images, log_file="d.log", log_level=4, ps=ps, pid=workload.pid,
                           lazy_pages=True, status_fd=told)  # fmt: skip
        dumping.say(m.criu_req(type=_TYPE.DUMP, opts=opts))
        assert os.read(ready, 1) == b"\0"
        for path in workload.images.iterdir():
            if path.is_file():
                (destination / path.name).write_bytes(path.read_bytes())
        words = ["lazy-pages", "-W", str(destination), "--page-server", "--address", LOOPBACK, "--port", str(port)]
        with waiting(words, destination) as bringing, rpc.worker() as restoring:
            there = directory(destination)
            opts = m.criu_opts(images_dir_fd=there, log_file="r.log", log_level=4, lazy_pages=True, auto_ext_mnt=True)
            restored = restoring.ask(m.criu_req(type=_TYPE.RESTORE, opts=opts))
            assert restored.success, restored.cr_errmsg
            assert bringing.end() == 0, bringing.log
        done = dumping.hear()
        assert done.success, done.cr_errmsg
        for fd in (images, there, ready, told):
            os.close(fd)
        workload.go_on_as(restored.restore.pid)
        workload.expect_pass()
