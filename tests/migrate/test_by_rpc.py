"""Page servers and pages that come later, as container runtimes ask for them."""

import os
import select
import socket
from pathlib import Path

import pytest

from harness import rpc
from harness.events import become_subreaper, time_limit_s
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


def serve_pages(images: Path, link: socket.socket, parent: str) -> int:
    """As go-criu has a server: the worker is gone, and the directory closed, as soon as there is an answer; its pid."""
    with rpc.worker(link.fileno()) as serving:
        fd = directory(images)
        ps = m.criu_page_server_info(fd=link.fileno())
        opts = m.criu_opts(images_dir_fd=fd, log_file="ps.log", log_level=4, ps=ps)
        if parent:
            opts.parent_img = parent
        answer = serving.ask(m.criu_req(type=_TYPE.PAGE_SERVER_CHLD, opts=opts))
        os.close(fd)
        assert answer.success, answer.cr_errmsg
        return answer.ps.pid


def test_rounds_over_one_connection_that_the_caller_has(tmp_path: Path) -> None:
    """go-criu's phaul: a server for each round, the rounds in one worker that is not told to stay."""
    ours, theirs = socket.socketpair()
    rounds = [tmp_path / "0", tmp_path / "1"]
    ahead = tmp_path / "ahead"
    for path in (*rounds, ahead):
        path.mkdir()
    become_subreaper()
    with ours, theirs, Workload.start("private_memory") as workload, rpc.worker(ours.fileno()) as dumping:
        workload.wait_ready()
        ps = m.criu_page_server_info(fd=ours.fileno())
        for kind, images, parent in ((_TYPE.PRE_DUMP, ahead, ""), (_TYPE.DUMP, workload.images, str(ahead))):
            server = serve_pages(rounds[bool(parent)], theirs, "../0" if parent else "")
            fd = directory(images)
            opts = m.criu_opts(images_dir_fd=fd, log_file="d.log", log_level=4, ps=ps, pid=workload.pid, track_mem=True)
            if parent:
                opts.parent_img = parent
            done = dumping.ask(m.criu_req(type=kind, opts=opts))
            os.close(fd)
            assert done.success, done.cr_errmsg
            assert os.waitstatus_to_exitcode(os.waitpid(server, 0)[1]) == 0
        workload.wait_gone()
        sizes = [sum(path.stat().st_size for path in each.glob("pages-*.img")) for each in rounds]
        assert 0 < sizes[1] < sizes[0] / 4
        for path in rounds[1].glob("page*.img"):
            path.rename(workload.images / path.name)
        (workload.images / "parent").unlink()
        (workload.images / "parent").symlink_to(rounds[0])
        workload.restore()
        workload.expect_pass()


@pytest.mark.parametrize("kind", [_TYPE.RESTORE, _TYPE.VERSION])
def test_after_a_pre_dump_comes_another_or_a_dump(kind: int, tmp_path: Path) -> None:
    with Workload.start("counter") as workload, rpc.worker() as worker:
        workload.wait_ready()
        images = directory(tmp_path)
        opts = m.criu_opts(images_dir_fd=images, log_file="d.log", log_level=4, pid=workload.pid)
        assert worker.ask(m.criu_req(type=_TYPE.PRE_DUMP, opts=opts)).success
        refused = worker.ask(m.criu_req(type=kind, opts=opts))
        os.close(images)
        assert not refused.success and refused.cr_errmsg == "Bad req seq"
        workload.expect_pass()


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
        # We have its other end as well: a dump that fails is no end of the file.
        assert select.select([ready], [], [], time_limit_s(60))[0] and os.read(ready, 1) == b"\0"
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
