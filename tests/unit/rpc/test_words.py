"""What clients ask for, as words of a command line."""

import pytest

from torpor.base.errors import UsageError
from torpor.cli.criu.parse import parse
from torpor.images import messages as m
from torpor.rpc.words import words_of


def _place_of(number: int) -> str:
    return f"/proc/77/fd/{number}"


_NEWNET = 0x40000000


def test_what_runc_sends_for_a_dump() -> None:
    opts = m.criu_opts(
        images_dir_fd=5, work_dir_fd=6, log_level=4, log_file="dump.log", root="/rootfs", manage_cgroups=True,
        notify_scripts=True, pid=123, shell_job=False, leave_running=True, file_locks=True, orphan_pts_master=True,
        freeze_cgroup="/sys/fs/cgroup/freezer/x", external=["net[40]:extRootNetNS"], empty_ns=_NEWNET,
        config_file="/etc/criu/runc.conf",
        ext_mnt=[m.ext_mount_map(key="/etc/hosts", val="/etc/hosts")],
    )  # fmt: skip
    options, rest = parse(["--no-default-config", *words_of(opts, _place_of)])
    assert rest == []
    assert (options.images_dir, options.work_dir) == ("/proc/77/fd/5", "/proc/77/fd/6")
    assert (options.log_file, options.verbosity, options.root) == ("dump.log", 4, "/rootfs")
    assert (options.leave_running, options.shell_job, options.orphan_pts_master) == (True, False, True)
    assert options.external == ["net[40]:extRootNetNS", "mnt[/etc/hosts]:/etc/hosts"]
    assert (options.freeze_cgroup, options.manage_cgroups) == ("/sys/fs/cgroup/freezer/x", "soft")


def test_what_runc_sends_for_a_restore() -> None:
    opts = m.criu_opts(
        images_dir_fd=5, rst_sibling=True,
        inherit_fd=[m.inherit_fd(key="pipe:[1]", fd=0), m.inherit_fd(key="extRootNetNS", fd=4)],
        join_ns=[m.join_namespace(ns="ipc", ns_file="/proc/9/ns/ipc")],
        cg_root=[m.cgroup_root(ctrl="memory", path="/a")],
        manage_cgroups=True, manage_cgroups_mode=m.criu_cg_mode.STRICT,
    )  # fmt: skip
    options, _ = parse(["--no-default-config", *words_of(opts, _place_of)])
    assert options.restore_sibling
    assert options.inherit_fd == [(0, "pipe:[1]"), (4, "extRootNetNS")]
    assert options.join_ns == [("ipc", "/proc/9/ns/ipc", "")]
    assert options.manage_cgroups == "strict"


def test_a_value_that_is_set_to_its_default_is_said() -> None:
    assert "--ghost-limit=1048576" in words_of(m.criu_opts(ghost_limit=1048576), _place_of)
    assert not [word for word in words_of(m.criu_opts(), _place_of) if word.startswith("--ghost-limit")]


@pytest.mark.parametrize(
    "opts",
    [m.criu_opts(log_file="../x"), m.criu_opts(empty_ns=1), m.criu_opts(empty_ns=_NEWNET | 0x20000)],
    ids=["a log elsewhere", "an unknown namespace", "more than the network"],
)
def test_what_cannot_be(opts: m.criu_opts) -> None:
    with pytest.raises(UsageError):
        words_of(opts, _place_of)


@pytest.mark.parametrize(
    "opts",
    [
        m.criu_opts(log_file="a\0"),
        m.criu_opts(images_dir="/a\0b", images_dir_fd=-1),
        m.criu_opts(freeze_cgroup="\0"),
        m.criu_opts(external=["fine", "mnt[a]:\0"]),
        m.criu_opts(config_file="\0"),
        m.criu_opts(exec_cmd=["true", "\0"]),
        m.criu_opts(inherit_fd=[m.inherit_fd(key="a\0", fd=1)]),
        m.criu_opts(ps=m.criu_page_server_info(address="a\0")),
    ],
    ids=lambda opts: opts.ListFields()[0][0].name,
)
def test_what_no_command_line_can_hold(opts: m.criu_opts) -> None:
    with pytest.raises(UsageError, match="zero byte"):
        words_of(opts, _place_of)


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (m.criu_opts(images_dir_fd=-1, images_dir="d"), {"--images-dir=d"}),
        (m.criu_opts(work_dir_fd=3), {"--work-dir=/proc/77/fd/3"}),
        (m.criu_opts(ext_unix_sk=True), {"--ext-unix-sk"}),
        (m.criu_opts(ext_unix_sk=True, unix_sk_ino=[m.unix_sk(inode=5), m.unix_sk(inode=6)]), {"--ext-unix-sk=5,6"}),
        (m.criu_opts(auto_ext_mnt=True), {"--external=mnt[]"}),
        (m.criu_opts(veths=[m.criu_veth_pair(if_in="a", if_out="b")]), {"--external=veth[a]:b"}),
        (m.criu_opts(cg_root=[m.cgroup_root(path="/a")]), {"--cgroup-root=/a"}),
        (m.criu_opts(status_fd=4), {"--status-fd=4"}),
        (m.criu_opts(manage_cgroups=False), {"--manage-cgroups=ignore"}),
        (m.criu_opts(manage_cgroups_mode=m.criu_cg_mode.CG_NONE), {"--manage-cgroups=none"}),
        (m.criu_opts(manage_cgroups_mode=m.criu_cg_mode.DEFAULT), {"--manage-cgroups=soft"}),
        (m.criu_opts(network_lock=m.criu_network_lock_method.SKIP), {"--network-lock=skip"}),
        (m.criu_opts(pre_dump_mode=m.criu_pre_dump_mode.VM_READ), {"--pre-dump-mode=read"}),
        (m.criu_opts(cpu_cap=0), {"--cpu-cap=none"}),
        (m.criu_opts(cpu_cap=3), {"--cpu-cap=fpu,cpu"}),
        (m.criu_opts(cpu_cap=0xFFFFFFFF), {"--cpu-cap=all"}),
        (
            m.criu_opts(ps=m.criu_page_server_info(address="::1", port=7, fd=9)),
            {"--page-server", "--address=::1", "--port=7", "--ps-socket=9"},
        ),
        (m.criu_opts(ps=m.criu_page_server_info(), lazy_pages=True), {"--lazy-pages"}),
    ],
)
def test_what_is_more_than_a_value(opts: m.criu_opts, words: set[str]) -> None:
    assert set(words_of(opts, _place_of)) == words | {"--verbosity=2"}
