"""A client's requests and our answers, over a socket, with somebody else's work: no kernel, no engine."""

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.events import become_subreaper
from torpor.base import log
from torpor.base.errors import ActionScriptError, NotPermittedError, TargetGoneError, TorporError, UsageError
from torpor.base.records import replace
from torpor.images import messages as m
from torpor.rpc import listen
from torpor.rpc.channel import Channel, ClientError
from torpor.rpc.service import Order, Work, refuse, serve

_TYPE = m.criu_req_type


class Server:
    """A page server that says who it is, where it may, when it serves."""

    port = 4711

    def __init__(self, told: int) -> None:
        self._told = told

    def serve(self) -> None:
        os.write(self._told, str(os.getpid()).encode())
        os.close(self._told)

    def close(self) -> None:
        pass


@dataclass
class Deeds:
    """What was asked of us, in order; ``then`` is done meanwhile."""

    done: list[tuple[str, Order]] = field(default_factory=list)
    executed: list[list[str]] = field(default_factory=list)
    reported: list[BaseException] = field(default_factory=list)
    then: Callable[[Order], None] = lambda order: None
    told: int = -1

    def note(self, what: str, order: Order) -> None:
        self.done.append((what, order))
        self.then(order)

    def check(self, order: Order) -> bool:
        self.note("check", order)
        return False

    def restore(self, order: Order) -> int:
        self.note("restore", order)
        return 4321

    def page_server(self, order: Order) -> Server:
        self.note("page server", order)
        return Server(self.told)

    def work(self) -> Work:
        return Work(
            dump=lambda order: self.note("dump", order),
            pre_dump=lambda order: self.note("pre-dump", order),
            restore=self.restore,
            check=self.check,
            cpuinfo=lambda action, order: self.note(f"cpuinfo {action}", order),
            page_server=self.page_server,
            features=lambda: {"mem_track": False, "lazy_pages": False, "pidfd_store": True},
            execute=self.executed.append,
            version=(4, 2, 0, "torpor"),
            report=self.reported.append,
            is_own=False,
        )


@dataclass
class Client:
    """The other end: what it says beforehand, and what it hears afterwards."""

    socket: socket.socket
    channel: Channel
    deeds: Deeds

    def say(self, request: m.criu_req) -> None:
        self.socket.send(request.SerializeToString())

    def hear(self) -> m.criu_resp:
        return m.criu_resp.FromString(self.socket.recv(1 << 16))

    def serve(self) -> bool:
        return serve(self.channel, self.deeds.work())


@pytest.fixture
def client() -> Iterator[Client]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.settimeout(10)
    channel = Channel(ours.detach())
    with theirs:
        yield Client(theirs, channel, Deeds())
        channel.close()


def request(kind: int, *, keep_open: bool = False, **options: object) -> m.criu_req:
    made = m.criu_req(type=kind, keep_open=keep_open)
    if options:
        made.opts.CopyFrom(m.criu_opts(images_dir_fd=7, **options))  # type: ignore[arg-type]
    return made


def test_a_dump_is_asked_for_in_words_and_answered(client: Client) -> None:
    client.say(request(_TYPE.DUMP, pid=55, leave_running=True, config_file="/etc/c.conf"))
    assert client.serve()
    [(what, order)] = client.deeds.done
    assert (what, order.pid, order.config) == ("dump", 55, "/etc/c.conf")
    assert {"--leave-running", f"--images-dir=/proc/{os.getpid()}/fd/7"} <= set(order.words)
    assert order.notify is None and order.orphan_master is None
    answer = client.hear()
    assert (answer.type, answer.success, answer.dump.restored) == (_TYPE.DUMP, True, False)


def test_a_dump_without_a_pid_is_of_the_client(client: Client) -> None:
    client.say(request(_TYPE.DUMP, leave_running=True))
    client.serve()
    assert client.deeds.done[0][1].pid == os.getpid()


def test_a_restore_gives_the_pid_and_becomes_what_the_client_wants(client: Client) -> None:
    client.say(request(_TYPE.RESTORE, exec_cmd=["sh", "-c", "true"]))
    assert not client.serve(), "it would have become the command"
    assert client.hear().restore.pid == 4321
    assert client.socket.recv(1) == b"", "nobody else waits at the client's connection"
    assert client.deeds.executed == [["sh", "-c", "true"]]


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (UsageError("no"), errno.EBADRQC), (TargetGoneError("no"), errno.ESRCH), (NotPermittedError("no"), errno.EPERM),
        (OSError(errno.ENOSPC, "no"), errno.ENOSPC), (TorporError("no"), 0), (ValueError("no\udcff"), 0),
    ],
)  # fmt: skip
def test_what_fails_is_answered_with_the_number_that_clients_know(
    client: Client, error: Exception, number: int
) -> None:
    def fail(order: Order) -> None:
        raise error

    client.deeds.then = fail
    client.say(request(_TYPE.RESTORE, leave_stopped=True))
    assert not client.serve()
    answer = client.hear()
    assert (answer.success, answer.cr_errno, answer.restore.pid) == (False, number, -1)
    assert "no" in answer.cr_errmsg
    assert client.deeds.reported == [error]


def test_an_error_of_an_earlier_request_is_none_of_this_one(client: Client) -> None:
    def fail(order: Order) -> None:
        raise TorporError("the second")

    log.error("the first")
    client.deeds.then = fail
    client.say(request(_TYPE.RESTORE, leave_stopped=True))
    assert not client.serve()
    assert client.hear().cr_errmsg == "the second"


def test_an_interruption_is_answered_and_goes_on(client: Client) -> None:
    def interrupt(order: Order) -> None:
        raise KeyboardInterrupt

    client.deeds.then = interrupt
    client.say(request(_TYPE.DUMP, pid=5))
    with pytest.raises(KeyboardInterrupt):
        client.serve()
    assert not client.hear().success


def test_the_client_is_told_and_may_say_no(client: Client) -> None:
    said: list[str] = []

    def tell(order: Order) -> None:
        assert order.notify is not None
        order.notify("pre-dump", 77)
        order.notify("post-restore", 77)
        said.append("still there")
        order.notify("pre-resume", 77)

    client.deeds.then = tell
    client.say(request(_TYPE.RESTORE, notify_scripts=True))
    for agrees in (True, True, False):
        client.say(m.criu_req(type=_TYPE.NOTIFY, notify_success=agrees))
    assert not client.serve()
    told = [client.hear() for _ in range(3)]
    assert [(each.notify.script, each.notify.pid) for each in told] == [
        ("pre-dump", 0), ("post-restore", 77), ("pre-resume", 0),
    ]  # fmt: skip
    assert said == ["still there"]
    assert not client.hear().success
    [error] = client.deeds.reported
    assert isinstance(error, ActionScriptError) and "pre-resume" in str(error)


def test_a_client_that_goes_while_it_is_told_ends_the_work(client: Client) -> None:
    def tell(order: Order) -> None:
        assert order.notify is not None
        order.notify("network-lock", 5)

    client.deeds.then = tell
    client.say(request(_TYPE.DUMP, pid=5, notify_scripts=True))
    client.socket.shutdown(socket.SHUT_WR)
    assert not client.serve()
    assert isinstance(client.deeds.reported[0], ClientError)


def test_a_terminals_master_goes_along(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "master"
    path.write_text("master")

    def give(order: Order) -> None:
        assert order.orphan_master is not None
        with path.open() as stream:
            order.orphan_master(stream.fileno())

    client.deeds.then = give
    client.say(request(_TYPE.RESTORE, notify_scripts=True, orphan_pts_master=True))
    client.say(m.criu_req(type=_TYPE.NOTIFY, notify_success=True))
    assert client.serve()
    packet, fds, _, _ = socket.recv_fds(client.socket, 1 << 16, 1)
    assert m.criu_resp.FromString(packet).notify.script == "orphan-pts-master"
    with open(fds[0]) as stream:
        assert stream.read() == "master"


@pytest.mark.parametrize("command", ["", "true"])
def test_a_container_is_guarded_until_its_client_has_the_answer(client: Client, command: str) -> None:
    """Nothing is waited for between that and our end; who becomes another command leaves that no dead child."""
    heard: list[str] = []

    class Guard:
        def dismiss(self) -> None:
            assert client.hear().success
            heard.append("dismissed")

        def bury(self) -> None:
            heard.append("buried")

    client.deeds.then = lambda order: order.guarded(Guard())
    client.say(request(_TYPE.RESTORE, exec_cmd=[command] if command else []))
    assert client.serve() == (not command)
    assert heard == (["dismissed", "buried"] if command else ["dismissed"])
    assert client.deeds.executed == ([[command]] if command else [])


def test_several_questions_on_one_connection(client: Client) -> None:
    client.say(request(_TYPE.VERSION, keep_open=True))
    features = m.criu_features(mem_track=True, pidfd_store=True)
    client.say(m.criu_req(type=_TYPE.FEATURE_CHECK, keep_open=True, features=features))
    client.say(request(_TYPE.CPUINFO_CHECK, keep_open=True, cpu_cap=2))
    client.say(request(_TYPE.CHECK, shell_job=False))
    assert not client.serve()
    version, features_found, cpuinfo, check = (client.hear() for _ in range(4))
    assert (version.version.major_number, version.version.minor_number, version.version.name) == (4, 2, "torpor")
    assert not version.version.HasField("sublevel")
    assert (features_found.features.mem_track, features_found.features.pidfd_store) == (False, True)
    assert cpuinfo.success and not check.success
    assert [what for what, _ in client.deeds.done] == ["cpuinfo check", "check"]


@pytest.mark.parametrize("kind", [_TYPE.PAGE_SERVER, _TYPE.PAGE_SERVER_CHLD])
def test_a_page_server_serves_in_a_process_of_its_own(client: Client, kind: int) -> None:
    """A child, which the client can have waited for; or nobody's."""
    ready, told = os.pipe()
    client.deeds.told = told
    become_subreaper()
    client.say(request(kind))
    assert client.serve()
    os.close(told)
    answer = client.hear()
    assert answer.success and answer.ps.port == 4711 and [what for what, _ in client.deeds.done] == ["page server"]
    with open(ready, "rb") as stream:
        assert int(stream.read()) == answer.ps.pid
    # By now it is ours to wait for in either case.
    assert os.waitstatus_to_exitcode(os.waitpid(answer.ps.pid, 0)[1]) == 0


def test_a_page_server_that_cannot_be_is_told_of(client: Client) -> None:
    def no(order: Order) -> None:
        raise TorporError("the port is taken")

    client.deeds.then = no
    client.say(request(_TYPE.PAGE_SERVER))
    assert not client.serve()
    assert not client.hear().success and "the port is taken" in str(client.deeds.reported[0])


def test_waiting_for_a_child(client: Client) -> None:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {})
    client.say(m.criu_req(type=_TYPE.WAIT_PID, pid=pid))
    assert client.serve()
    assert os.waitstatus_to_exitcode(client.hear().status) == 3


@pytest.mark.parametrize("pid", [0, 1 << 30])
def test_waiting_for_what_cannot_be_a_child(client: Client, pid: int) -> None:
    client.say(m.criu_req(type=_TYPE.WAIT_PID, pid=pid))
    assert not client.serve() and client.hear().cr_errno == errno.EBADRQC


def test_a_dump_cannot_keep_the_connection(client: Client) -> None:
    client.say(request(_TYPE.DUMP, keep_open=True, pid=5))
    assert not client.serve() and client.deeds.done == []


@pytest.mark.parametrize("packet", [b"\xff\xff\xff", m.criu_req(type=_TYPE.NOTIFY).SerializeToString()])
def test_what_is_no_request_is_refused(client: Client, packet: bytes) -> None:
    client.socket.send(packet)
    assert not client.serve()
    assert client.hear().cr_errmsg == "Invalid req"


def test_nobody_is_there(client: Client) -> None:
    client.socket.close()
    assert not client.serve()
    assert not refuse(client.channel, "nobody hears this")


def test_a_service_socket_is_its_owners(tmp_path: Path) -> None:
    path, group = str(tmp_path / "service"), os.getgid()
    for mode in (0o600, 0o660):
        with listen._bind(path, listen.Access(mode, group)):
            info = os.lstat(path)
            assert (stat.S_IMODE(info.st_mode), info.st_gid) == (mode, group), "the earlier one is replaced"
    Path(path).unlink()
    Path(path).write_text("mine")
    with pytest.raises(TorporError, match="something else"):
        listen._bind(path, listen.Access())
    with pytest.raises(TorporError, match="No such file"):
        listen._bind(str(tmp_path / "none" / "x"), listen.Access())
    assert Path(path).read_text() == "mine"


def test_who_asks_for_nothing_is_let_go(client: Client) -> None:
    work = replace(client.deeds.work(), patience_s=0.01)
    assert not serve(client.channel, work)
    assert "nothing was asked for" in client.hear().cr_errmsg
    client.say(request(_TYPE.VERSION, keep_open=True))
    assert not serve(client.channel, work)
    assert client.hear().type == _TYPE.VERSION
    assert "nothing was asked for" in client.hear().cr_errmsg


def test_a_pre_dump_may_be_followed_at_any_time(client: Client) -> None:
    def wait(timeout_s: float) -> bool:
        waited.append(timeout_s)
        client.say(request(_TYPE.PRE_DUMP))
        client.say(request(_TYPE.DUMP))
        return True

    waited: list[float] = []
    client.channel.wait = wait  # type: ignore[method-assign]
    assert serve(client.channel, replace(client.deeds.work(), patience_s=7))
    assert [what for what, _ in client.deeds.done] == ["pre-dump", "dump"]
    assert waited == [7]
