"""`criu service`: a socket that anybody may connect to, a worker for each client."""

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness.events import ProcessWatch, time_limit_s
from harness.rpc import worker
from harness.workload import Workload
from torpor.images import messages as m

pytestmark = pytest.mark.root
_TYPE = m.criu_req_type
_LINE = [sys.executable, "-m", "torpor.cli.criu.main"]


def _ask(address: Path, request: m.criu_req) -> m.criu_resp:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(time_limit_s(30))
        client.connect(str(address))
        client.send(request.SerializeToString())
        return m.criu_resp.FromString(client.recv(1 << 16))


def test_a_daemon_serves_one_client_after_another(tmp_path: Path) -> None:
    address, pid_file = tmp_path / "socket", tmp_path / "pid"
    line = [*_LINE, "service", "--daemon", "--address", str(address), "--pidfile", str(pid_file)]
    subprocess.run(line, check=True, timeout=time_limit_s(30))
    daemon = ProcessWatch(int(pid_file.read_text()))
    try:
        for _ in range(2):
            answer = _ask(address, m.criu_req(type=_TYPE.VERSION))
            assert answer.success and answer.version.name.startswith("torpor")
        with Workload.start("counter") as workload:
            workload.wait_ready()
            opts = m.criu_opts(images_dir_fd=-1, images_dir=str(tmp_path), log_file="dump.log", pid=workload.pid)
            opts.leave_running = True
            answer = _ask(address, m.criu_req(type=_TYPE.DUMP, opts=opts))
            assert answer.success, answer.cr_errmsg
            workload.expect_pass()
        refused = m.criu_opts(images_dir_fd=-1, images_dir=str(tmp_path), rst_sibling=True)
        assert not _ask(address, m.criu_req(type=_TYPE.RESTORE, opts=refused)).success
    finally:
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_ended(time_limit_s(10))
        daemon.close()


def test_more_clients_than_there_may_be_workers_wait(tmp_path: Path) -> None:
    address, pid_file = tmp_path / "socket", tmp_path / "pid"
    line = [*_LINE, "service", "--daemon", "--address", str(address), "--pidfile", str(pid_file)]
    subprocess.run(line, check=True, timeout=time_limit_s(30))
    daemon = ProcessWatch(int(pid_file.read_text()))
    children = Path(f"/proc/{pid_file.read_text()}/task/{pid_file.read_text()}/children")
    request = m.criu_req(type=_TYPE.VERSION, keep_open=True).SerializeToString()
    clients = []
    try:
        for number in range(68):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            clients.append(client)
            client.settimeout(time_limit_s(30))
            client.connect(str(address))
            client.send(request)
            if number < 64:
                assert m.criu_resp.FromString(client.recv(1 << 16)).success
        assert select.select(clients[64:], (), (), 0.5)[0] == []
        assert len(children.read_text().split()) == 64
        for client in clients[:64]:
            client.close()
        for client in clients[64:]:
            assert m.criu_resp.FromString(client.recv(1 << 16)).success
            client.close()
    finally:
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_ended(time_limit_s(10))
        daemon.close()


def test_an_address_that_cannot_be_bound_is_told(tmp_path: Path) -> None:
    line = [*_LINE, "service", "--address", str(tmp_path / "no" / "socket")]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=time_limit_s(30))
    assert done.returncode == 1 and "No such file or directory" in done.stderr


def test_the_worker_becomes_the_command_that_the_client_wants(tmp_path: Path) -> None:
    with Workload.start("counter") as workload:
        workload.wait_ready()
        workload.dump()
        fd = os.open(workload.images, os.O_RDONLY)
        with worker() as client:
            opts = m.criu_opts(
                images_dir_fd=fd, log_file="restore.log", exec_cmd=["sh", "-c", f"echo $PPID > {tmp_path}/ran"]
            )
            assert client.ask(m.criu_req(type=_TYPE.RESTORE, opts=opts)).success
        os.close(fd)
    assert int((tmp_path / "ran").read_text()) == os.getpid()
