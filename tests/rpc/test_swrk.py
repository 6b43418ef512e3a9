"""The worker that runtimes start: requests, answers and notifications as their clients see them."""

import os
from pathlib import Path

import pytest

from harness import engine, rpc
from harness.rpc import worker
from harness.workload import Workload
from torpor.images import messages as m
from torpor.kernel.features import probe
from torpor.kernel.userfaultfd import can_track

pytestmark = pytest.mark.root
_TYPE = m.criu_req_type


def _opts(directory: Path, fd: int, log: str, **more: object) -> m.criu_opts:
    directory.mkdir(exist_ok=True)
    opts = m.criu_opts(images_dir_fd=fd, log_file=log, log_level=4, notify_scripts=True)
    for name, value in more.items():
        setattr(opts, name, value)
    return opts


def test_version_says_who_it_is() -> None:
    with worker() as client:
        answer = client.ask(m.criu_req(type=_TYPE.VERSION))
    assert answer.success
    assert (answer.version.major_number, answer.version.minor_number) == (4, 2)
    assert answer.version.name.startswith("torpor")


def test_several_questions_on_one_connection() -> None:
    with worker() as client:
        assert client.ask(m.criu_req(type=_TYPE.VERSION, keep_open=True)).success
        wanted = m.criu_features(mem_track=True, lazy_pages=True, pidfd_store=True)
        answer = client.ask(m.criu_req(type=_TYPE.FEATURE_CHECK, keep_open=True, features=wanted))
        assert answer.success and answer.features.pidfd_store
        assert answer.features.lazy_pages is (probe("uffd") and probe("uffd-noncoop"))
        assert answer.features.mem_track == can_track()
        assert client.ask(m.criu_req(type=_TYPE.CHECK)).success


@pytest.mark.parametrize("packet", [b"\xff\xff\xff", m.criu_req(type=_TYPE.NOTIFY).SerializeToString()])
def test_what_is_no_request_is_answered(packet: bytes) -> None:
    with worker() as client:
        answer = client.send(packet)
    assert not answer.success and answer.type == _TYPE.EMPTY


def test_dump_and_restore_with_notifications() -> None:
    with Workload.start("counter") as workload, engine.using(rpc.command()):
        workload.wait_ready()
        workload.dump()
        workload.restore()
        told = [(workload.images / f"told-{action}").read_text().split() for action in ("dump", "restore")]
        workload.expect_pass()
    assert (told[0][0], told[0][-1]) == ("pre-dump", "post-dump")
    assert told[1][0] == "pre-restore"
    assert told[1][-3:] == ["post-restore", "pre-resume", "post-resume"]


def test_a_client_that_says_no_keeps_its_process(tmp_path: Path) -> None:
    with Workload.start("counter") as workload:
        workload.wait_ready()
        fd = os.open(tmp_path, os.O_RDONLY)
        with worker() as client:
            client.refuses = "post-dump"
            answer = client.ask(m.criu_req(type=_TYPE.DUMP, opts=_opts(tmp_path, fd, "dump.log", pid=workload.pid)))
        os.close(fd)
        assert not answer.success and "post-dump" in answer.cr_errmsg
        workload.expect_pass()


def test_errors_have_numbers_and_texts(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    with worker() as client:
        answer = client.ask(m.criu_req(type=_TYPE.DUMP, opts=_opts(tmp_path, fd, "dump.log", pid=(1 << 22) - 3)))
    os.close(fd)
    assert not answer.success
    assert answer.cr_errno == 3
    assert "no process has pid" in answer.cr_errmsg
    assert "Error (" in (tmp_path / "dump.log").read_text()


def test_the_clients_configuration_file_overrides_what_it_asks_for(tmp_path: Path) -> None:
    config = tmp_path / "runc.conf"
    config.write_text("log-file mine.log\nleave-running\n")
    with Workload.start("counter") as workload:
        workload.wait_ready()
        fd = os.open(tmp_path, os.O_RDONLY)
        with worker() as client:
            opts = _opts(tmp_path, fd, "dump.log", pid=workload.pid, config_file=str(config))
            assert client.ask(m.criu_req(type=_TYPE.DUMP, opts=opts)).success
        os.close(fd)
        assert (tmp_path / "mine.log").exists() and not (tmp_path / "dump.log").exists()
        workload.expect_pass()
