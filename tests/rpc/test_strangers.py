"""An unprivileged client of root's `criu service`: requests of every kind, and nothing of another's is touched."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import rpc, stranger
from harness.edited import forget_manifest
from harness.events import ProcessWatch, time_limit_s
from harness.workload import Workload
from torpor.base.ids import Pid
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import load_all, load_one, store_all, store_one
from torpor.images.stores.directory import DirStore
from torpor.kernel.procfs.stat import read_stat

pytestmark = pytest.mark.root
_TYPE = m.criu_req_type
_LINE = [sys.executable, "-m", "torpor.cli.criu.main"]
#: Where torpor is installed may be nobody else's to look at.
_PYTHON = "/usr/bin/python3"
_USER = 54321
_HARNESS = Path(stranger.__file__)
_CHECKPOINT_RESTORE = 40
#: How the client's own process is told from others.
_SECONDS = f"9{os.getpid()}"


@contextmanager
def service(directory: Path, *options: str) -> Iterator[Path]:
    """Root's service, its socket in *directory*."""
    address, pid_file = directory / "socket", directory / "pid"
    line = [*_LINE, "service", "--daemon", "--address", str(address), "--pidfile", str(pid_file), *options]
    subprocess.run(
        line,
        check=True,
        timeout=time_limit_s(60),
    )
    daemon = ProcessWatch(int(pid_file.read_text()))
    try:
        yield address
    finally:
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_ended(time_limit_s(10))
        daemon.close()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody can enter."""
    directory = Path(tempfile.mkdtemp(prefix="torpor-strangers-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


class Client:
    """Somebody else's process that sends what it is told."""

    def __init__(self, address: Path, images: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(_HARNESS), str(address), str(images), str(_USER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        self.pid = self._process.pid

    def send(self, packet: bytes) -> "dict[str, object]":
        """The answer to one packet."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(packet.hex() + "\n")
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline())
        assert isinstance(found, dict)
        return found

    def close(self) -> None:
        """End it."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.kill()
        self._process.wait()


def test_only_the_owner_may_connect(place: Path) -> None:
    with service(place) as address:
        assert stat.S_IMODE(address.stat().st_mode) == 0o600
        client = Client(address, place)
        answer = client.send(m.criu_req(type=_TYPE.VERSION).SerializeToString())
        client.close()
        assert "Permission denied" in str(answer["text"])


_MANY = """
import socket, sys
clients = []
for _ in range(int(sys.argv[2])):
    clients.append(client := socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    client.connect(sys.argv[1])
    try:
        client.send(bytes.fromhex(sys.argv[3]))
    except BrokenPipeError:
        pass  # it has its answer already
    print(client.recv(65536).hex(), flush=True)
sys.stdin.read()
"""


def test_one_of_others_leaves_workers_for_all(place: Path) -> None:
    request = m.criu_req(type=_TYPE.VERSION, keep_open=True).SerializeToString().hex()
    with service(place, "--socket-mode", "0666") as address:
        line = [_PYTHON, "-c", _MANY, str(address)]
        others = subprocess.Popen(
            [*line, "18", request], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, user=_USER, cwd="/"
        )
        assert others.stdin and others.stdout
        told = [m.criu_resp.FromString(bytes.fromhex(others.stdout.readline())) for _ in range(18)]
        assert [each.success for each in told] == [True] * 16 + [False] * 2
        assert f"user {_USER} has 16 connections to the service already" in told[-1].cr_errmsg
        for user in (0, _USER + 1):
            done = subprocess.run([*line, "1", request], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  user=user, cwd="/", timeout=time_limit_s(30), check=True,)  # fmt: skip
            assert m.criu_resp.FromString(bytes.fromhex(done.stdout)).success
        others.communicate()


def test_a_group_may_be_let_in(place: Path) -> None:
    with service(place, "--socket-mode", "0660", "--socket-group", str(_USER)) as address:
        info = address.stat()
        assert (stat.S_IMODE(info.st_mode), info.st_gid) == (0o660, _USER)
        client = Client(address, place)
        assert client.send(m.criu_req(type=_TYPE.VERSION).SerializeToString())["success"]
        client.close()


def test_a_socket_takes_no_file_s_place(place: Path) -> None:
    (place / "socket").write_text("something")
    done = subprocess.run(
        [*_LINE, "service", "--address", str(place / "socket")],
        capture_output=True,
        text=True,
        check=False,
        timeout=time_limit_s(60),
    )
    assert done.returncode == 1 and "something else" in done.stderr
    assert (place / "socket").read_text() == "something"


@dataclass
class World:
    """What there is for a client to harm, and what it has itself."""

    place: Path
    secret: Path
    images: Path
    victim: int
    own: int = 0

    def snapshot(self) -> object:
        """All that nobody else may change."""
        found = []
        for path in sorted(self.secret.rglob("*")):
            info = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
            found.append((str(path), info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, info.st_nlink, content))
        victim = read_stat(Pid(self.victim))
        groups = Path(f"/proc/{self.victim}/cgroup").read_text()
        links = {name: os.readlink(f"/proc/{self.victim}/ns/{name}") for name in ("mnt", "net", "uts", "ipc", "pid")}
        status = Path(f"/proc/{self.victim}/status").read_text()
        pending = [line for line in status.splitlines() if line.startswith(("SigPnd", "ShdPnd", "TracerPid"))]
        return found, victim.state in "SR", victim.start_time, groups, links, pending, socket.gethostname()

    def opts(self, **more: object) -> m.criu_opts:
        """Options with the client's own directory."""
        opts = m.criu_opts(images_dir_fd=stranger.NUMBER, log_file="rpc.log", log_level=4)
        for name, value in more.items():
            if isinstance(value, (list, tuple)):
                getattr(opts, name).extend(value)
            elif isinstance(value, m.criu_page_server_info):
                opts.ps.CopyFrom(value)
            else:
                setattr(opts, name, value)
        return opts


def _dump(**more: object) -> "Callable[[World], m.criu_req]":
    def request(world: World) -> m.criu_req:
        found = {name: value(world) if callable(value) else value for name, value in more.items()}
        found.setdefault("pid", world.own)
        return m.criu_req(type=_TYPE.DUMP, opts=world.opts(leave_running=True, **found))

    return request


def _restore(
    edit: "Callable[[World, DirStore], None] | None" = None, **more: object
) -> "Callable[[World], m.criu_req]":
    def request(world: World) -> m.criu_req:
        if edit is not None:
            with DirStore(world.images, "r") as store:
                edit(world, store)
        found = {name: value(world) if callable(value) else value for name, value in more.items()}
        return m.criu_req(type=_TYPE.RESTORE, opts=world.opts(**found))

    return request


def _of_kind(kind: int, **more: object) -> "Callable[[World], m.criu_req]":
    def request(world: World) -> m.criu_req:
        found = {name: value(world) if callable(value) else value for name, value in more.items()}
        return m.criu_req(type=kind, opts=world.opts(**found))

    return request


@contextmanager
def _changing(world: World) -> "Iterator[DirStore]":
    """To write images that are the client's."""
    forget_manifest(world.images)
    with DirStore(world.images, "w") as store:
        yield store
    for path in world.images.iterdir():
        os.chown(path, _USER, _USER, follow_symlinks=False)


def _write(world: World, kind: str, entry: m.Message, ident: int | None = None) -> None:
    with _changing(world) as store:
        store_one(store, kind, entry, *([] if ident is None else [ident]))


def _core(change: "Callable[[World, m.core_entry], None]") -> "Callable[[World, DirStore], None]":
    def edit(world: World, store: DirStore) -> None:
        core = load_one(store, kinds.CORE, world.own)
        change(world, core)
        _write(world, "CORE", core, world.own)

    return edit


def _files(change: "Callable[[World, list[m.file_entry]], None]") -> "Callable[[World, DirStore], None]":
    def edit(world: World, store: DirStore) -> None:
        entries = list(load_all(store, kinds.FILES))
        change(world, entries)
        with _changing(world) as out:
            store_all(out, "FILES", entries)

    return edit


def _be_root(world: World, core: m.core_entry) -> None:
    creds = core.thread_core.creds
    creds.uid = creds.euid = creds.suid = creds.fsuid = 0


def _be_in_a_group(world: World, core: m.core_entry) -> None:
    core.thread_core.creds.groups.append(0)


def _be_capable(number: int) -> "Callable[[World, m.core_entry], None]":
    def change(world: World, core: m.core_entry) -> None:
        for words in (core.thread_core.creds.cap_prm, core.thread_core.creds.cap_eff):
            words[number // 32] |= 1 << number % 32

    return change


def _be_limitless(world: World, core: m.core_entry) -> None:
    for limit in core.tc.rlimits.rlimits:
        limit.cur = limit.max = (1 << 64) - 1


def _be_unkillable(world: World, core: m.core_entry) -> None:
    core.tc.oom_score_adj = -1000


def _be_urgent(world: World, core: m.core_entry) -> None:
    core.thread_core.sched_policy, core.thread_core.sched_prio = 1, 99


def _be_labelled(world: World, core: m.core_entry) -> None:
    core.thread_core.creds.lsm_profile = "unconfined"


def _open_secret(world: World, entries: "list[m.file_entry]") -> None:
    found = next(entry for entry in entries if entry.HasField("reg"))
    for entry in entries:
        if entry.HasField("reg") and entry.id == found.id:
            entry.reg.name = str(world.secret / "file")
            entry.reg.ClearField("size")
            entry.reg.flags |= os.O_RDWR | os.O_TRUNC


def _signal_victim(world: World, entries: "list[m.file_entry]") -> None:
    for entry in entries:
        if entry.HasField("reg"):
            entry.reg.fown.CopyFrom(m.fown_entry(uid=0, euid=0, signum=9, pid_type=1, pid=world.victim))


def _delete_secret(world: World, store: DirStore) -> None:
    entries = list(load_all(store, kinds.FILES))
    reg = next(entry for entry in entries if entry.HasField("reg"))
    link = m.file_entry(type=m.fd_types.REG, id=4242)
    link.reg.CopyFrom(reg.reg)
    link.reg.id, link.reg.name = 4242, str(world.secret / "file")
    with _changing(world) as out:
        store_all(out, "FILES", [*entries, link])
        remap = m.remap_file_path_entry(orig_id=reg.id, remap_id=4242, remap_type=m.remap_type.LINKED)
        store_all(out, "REMAP_FPATH", [remap])


def _ghost_in_secret(world: World, store: DirStore) -> None:
    entries = list(load_all(store, kinds.FILES))
    reg = next(entry for entry in entries if entry.HasField("reg"))
    reg.reg.name = str(world.secret / "ghost")
    with _changing(world) as out:
        store_all(out, "FILES", entries)
        remap = m.remap_file_path_entry(orig_id=reg.id, remap_id=1, remap_type=m.remap_type.GHOST)
        store_all(out, "REMAP_FPATH", [remap])
        ghost = m.ghost_file_entry(uid=0, gid=0, mode=stat.S_IFBLK | 0o666, rdev=8 << 20)
        store_one(out, "GHOST_FILE", ghost, 1)


def _groups_of_victim(world: World, store: DirStore) -> None:
    entry = m.cgroup_entry()
    found = entry.sets.add(id=1)
    found.ctls.add(name="name=systemd", path="/")
    controller = entry.controllers.add(cnames=["name=systemd"])
    head = controller.dirs.add(dir_name="torpor-stranger")
    head.properties.add(
        name=str(world.secret / "file"), value="x", perms=m.cgroup_perms(mode=0o4777, uid=_USER, gid=_USER)
    )
    _write(world, "CGROUP", entry)


def _in_mount_namespace(world: World, store: DirStore) -> None:
    ids = load_one(store, kinds.IDS, world.own)
    ids.mnt_ns_id = 99
    _write(world, "IDS", ids, world.own)
    root = m.mnt_entry(
        fstype=0, mnt_id=1, root_dev=1, parent_mnt_id=0, flags=0, root="/", mountpoint="/", source="none", options=""
    )
    over = m.mnt_entry(
        fstype=16, mnt_id=2, root_dev=2, parent_mnt_id=1, flags=0, root="/", mountpoint=str(world.secret),
        source="/dev/vda", options="", fsname="ext4",
    )  # fmt: skip
    with _changing(world) as out:
        store_all(out, "MNTS", [over, root], 99)


def _log_through_link(world: World) -> str:
    (world.images / "evil.log").unlink(missing_ok=True)
    (world.images / "evil.log").symlink_to(world.secret / "made-by-a-client")
    return "evil.log"


def _image_through_link(world: World) -> int:
    (world.images / "inventory.img").unlink(missing_ok=True)
    (world.images / "inventory.img").symlink_to(world.secret / "file")
    return world.own


def _config(world: World) -> str:
    path = world.images / "evil.conf"
    path.write_text(f"action-script touch {world.secret}/made-by-a-script\npidfile {world.secret}/made-as-pid-file\n")
    return str(path)


def _touch(world: World) -> "list[str]":
    return ["sh", "-c", f"touch {world.secret}/made-by-exec; kill -9 {world.victim}; id -u > {world.images}/who"]


def _secret(name: str = "") -> "Callable[[World], str]":
    return lambda world: str(world.secret / name)


#: What is asked for, and whether it may succeed: it is the client's own then.
REQUESTS: "dict[str, tuple[Callable[[World], m.criu_req | bytes], bool]]" = {
    "dump the victim": (_dump(pid=lambda world: world.victim), False),
    "dump the victim, told of each step": (_dump(pid=lambda world: world.victim, notify_scripts=True), False),
    "dump init": (_dump(pid=1), False),
    "dump a pid that is none": (_dump(pid=-5), False),
    "dump its own": (_dump(), True),
    "dump into root's directory": (_dump(images_dir_fd=-1, images_dir=_secret()), False),
    "dump, work in root's directory": (_dump(images_dir_fd=-1, images_dir=_secret("."), work_dir_fd=50), False),
    "dump, descriptor of nobody": (_dump(images_dir_fd=999), False),
    "dump, log through a link": (_dump(log_file=_log_through_link), False),
    "dump, log elsewhere": (_dump(log_file="../secret/log"), False),
    "dump, image through a link": (_dump(pid=_image_through_link), True),
    "dump with a configuration file": (_dump(config_file=_config), False),
    "dump with root's parent images": (_dump(parent_img=_secret()), False),
    "dump by the victim's freezer": (_dump(freeze_cgroup="/sys/fs/cgroup/freezer"), False),
    "dump with root's cgroup properties": (_dump(cgroup_props_file=_secret("file"), manage_cgroups=True), False),
    "dump with root's cgroup yard": (_dump(cgroup_yard=_secret(), manage_cgroups=True), True),
    "dump to a page server": (_dump(ps=m.criu_page_server_info(address="127.0.0.1", port=1)), False),
    "dump and lock the network": (_dump(tcp_established=True, network_lock=1), True),
    "dump with an external veth": (_dump(veths=[m.criu_veth_pair(if_in="lo", if_out="lo")]), True),
    "pre-dump the victim": (_of_kind(_TYPE.PRE_DUMP, pid=lambda world: world.victim), False),
    "pre-dump the victim once": (_of_kind(_TYPE.SINGLE_PRE_DUMP, pid=lambda world: world.victim), False),
    "restore its own": (_restore(), True),
    "restore as root": (_restore(_core(_be_root)), False),
    "restore in root's group": (_restore(_core(_be_in_a_group)), False),
    "restore with CAP_SYS_ADMIN": (_restore(_core(_be_capable(21))), False),
    "restore with CAP_CHECKPOINT_RESTORE": (_restore(_core(_be_capable(_CHECKPOINT_RESTORE))), False),
    "restore without limits": (_restore(_core(_be_limitless)), False),
    "restore unkillable": (_restore(_core(_be_unkillable)), True),  # but it is not
    "restore in real time": (_restore(_core(_be_urgent)), False),
    "restore with a label": (_restore(_core(_be_labelled)), False),
    "restore with root's file open": (_restore(_files(_open_secret)), False),
    "restore as a sender of signals": (_restore(_files(_signal_victim)), True),
    "restore, a link to be deleted": (_restore(_delete_secret), False),
    "restore, a device in root's directory": (_restore(_ghost_in_secret), False),
    "restore, cgroup properties": (_restore(_groups_of_victim, manage_cgroups=True), False),
    "restore and execute": (_restore(exec_cmd=_touch), True),
    "restore beside the victim": (
        _restore(join_ns=lambda world: [m.join_namespace(ns="net", ns_file=str(world.victim))]), False,
    ),
    "restore with root's descriptors": (_restore(inherit_fd=[m.inherit_fd(key="/x", fd=1)]), False),
    "restore as a sibling": (_restore(rst_sibling=True), False),
    "restore with a configuration file": (_restore(config_file=_config), False),
    "restore with root's directory mounted": (
        _restore(ext_mnt=lambda world: [m.ext_mount_map(key="x", val=str(world.secret))]), True,
    ),
    "restore in another group": (_restore(cg_root=[m.cgroup_root(path="/")], manage_cgroups_mode=2), True),
    "restore with a profile": (_restore(lsm_profile="apparmor:unconfined"), False),
    "restore below another root": (_restore(root=_secret()), True),
    "restore root's images": (_restore(images_dir_fd=-1, images_dir=_secret()), False),
    # The last, for what it tries has the next process in the system get the pid.
    "restore, a disk mounted": (_restore(_in_mount_namespace), False),
    "check": (_of_kind(_TYPE.CHECK), False),  # seccomp filters can be read by CAP_SYS_ADMIN only
    "version": (_of_kind(_TYPE.VERSION), True),
    "features": (_of_kind(_TYPE.FEATURE_CHECK), True),
    "cpuinfo into root's directory": (_of_kind(_TYPE.CPUINFO_DUMP, images_dir_fd=-1, images_dir=_secret()), False),
    "cpuinfo": (_of_kind(_TYPE.CPUINFO_DUMP), True),
    "cpuinfo of root's": (_of_kind(_TYPE.CPUINFO_CHECK, images_dir_fd=-1, images_dir=_secret()), False),
    "wait for the victim": (lambda world: m.criu_req(type=_TYPE.WAIT_PID, pid=world.victim), False),
    "wait for anybody": (lambda world: m.criu_req(type=_TYPE.WAIT_PID, pid=0xFFFFFFFF), False),
    "page server": (_of_kind(_TYPE.PAGE_SERVER, ps=m.criu_page_server_info(port=27)), False),
    "page server as a child": (_of_kind(_TYPE.PAGE_SERVER_CHLD), True),
    "a notification that nobody asked for": (_of_kind(_TYPE.NOTIFY), False),
    "no message at all": (lambda world: b"\xff" * 100, False),
    "a long packet": (lambda world: b"\0" * 100_000, False),
}  # fmt: skip


@pytest.fixture
def world(place: Path) -> Iterator[World]:
    secret, images = place / "secret", place / "images"
    secret.mkdir(mode=0o700)
    (secret / "file").write_text("root's")
    (secret / "file").chmod(0o600)
    images.mkdir()
    os.chown(images, _USER, _USER)
    with Workload.start("counter") as workload:
        workload.wait_ready()
        yield World(place, secret, images, workload.pid)
        workload.expect_pass()


def _start_own() -> "subprocess.Popen[bytes]":
    null = subprocess.DEVNULL
    return subprocess.Popen(
        ["/bin/sleep", _SECONDS], stdin=null, stdout=null, stderr=null, user=_USER, group=_USER, extra_groups=[],
        start_new_session=True, cwd="/",
    )  # fmt: skip


def _sleepers() -> "list[int]":
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if Path(f"/proc/{name}/cmdline").read_bytes() == f"/bin/sleep\0{_SECONDS}\0".encode():
                    found.append(int(name))
            except OSError:
                continue
    return found


def _check_own(pid: int) -> None:
    """What was restored has nothing that its owner has not."""
    status = Path(f"/proc/{pid}/status").read_text()
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(lines["Uid"].split()) == {str(_USER)} and set(lines["Gid"].split()) == {str(_USER)}
    assert not lines["Groups"].strip()
    assert all(not int(lines[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"))
    assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) >= int(Path("/proc/self/oom_score_adj").read_text())


def test_nothing_of_another_s_is_touched(world: World) -> None:
    process = _start_own()
    world.own = process.pid
    pristine = world.place / "pristine"
    with service(world.place, "--socket-mode", "0666", "-o", str(world.place / "service.log")) as address:
        client = Client(address, world.images)
        first = client.send(_dump()(world).SerializeToString())
        assert first["success"], first["text"]
        shutil.copytree(world.images, pristine, symlinks=True)
        before = world.snapshot()
        wrong = {}
        try:
            for name, (make, expected) in REQUESTS.items():
                _put_back(world, pristine)
                if name.startswith("restore") and process.poll() is None:
                    process.kill()
                    process.wait()
                request = make(world)
                packet = request if isinstance(request, bytes) else request.SerializeToString()
                answer = client.send(packet)
                if answer["success"] != expected:
                    wrong[name] = answer
                assert "bug" not in str(answer["text"]), f"{name}: {answer}"
                if answer["success"] and name.startswith("restore"):
                    _check_own(world.own)
                for pid in _sleepers():
                    if pid != process.pid or process.poll() is not None:
                        os.kill(pid, signal.SIGKILL)
                        _wait_gone(pid)
                assert world.snapshot() == before, f"{name}: something of root's was changed"
        finally:
            client.close()
            for pid in _sleepers():
                os.kill(pid, signal.SIGKILL)
    process.wait()
    assert not wrong
    assert (world.images / "who").read_text().strip() == str(_USER)


def test_a_page_server_that_is_a_child_ends_with_its_client(place: Path) -> None:
    """Of a service, which nobody would ever ask about it again."""
    with service(place) as address, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(str(address))
        images = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        ps = m.criu_page_server_info(address="127.0.0.1")
        opts = m.criu_opts(images_dir_fd=images, log_file="ps.log", log_level=4, ps=ps)
        answer = rpc.Client(connection).ask(m.criu_req(type=_TYPE.PAGE_SERVER_CHLD, opts=opts, keep_open=True))
        os.close(images)
        assert answer.success, answer.cr_errmsg
        watch = ProcessWatch(answer.ps.pid)
        connection.close()
        assert watch.wait_ended(time_limit_s(20))
        watch.close()


def _put_back(world: World, pristine: Path) -> None:
    for path in world.images.iterdir():
        if path.name != "who":
            path.unlink()
    for path in pristine.iterdir():
        if path.name != "torpor.manifest":  # a client can write one that fits
            target = world.images / path.name
            shutil.copyfile(path, target)
            os.chown(target, _USER, _USER)


def _wait_gone(pid: int) -> None:
    """Until it is dead and its pid is free: its worker may still be its parent, and we are afterwards."""
    deadline = time.monotonic() + time_limit_s(20)
    while time.monotonic() < deadline:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        if not os.path.exists(f"/proc/{pid}"):
            return
        os.sched_yield()
    raise AssertionError(f"{pid} does not end")
