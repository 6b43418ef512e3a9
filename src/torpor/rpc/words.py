"""``criu_opts`` as the words of a ``criu`` command line.

There is one way by which options reach the engine, and one place that knows what they mean; what comes by RPC takes
that way too, in the words of criu(8).  What a command line cannot say (descriptors of the client's) is translated here.
"""

from __future__ import annotations

from collections.abc import Callable

from torpor.base.errors import UsageError
from torpor.images import messages as m
from torpor.kernel.namespaces import CLONE_NEWNET

#: Field and option, for both of which true and false are the same thing said.
_SWITCHES = (
    ("leave_running", "leave-running"), ("leave_stopped", "leave-stopped"), ("tcp_established", "tcp-established"),
    ("tcp_close", "tcp-close"), ("tcp_skip_in_flight", "skip-in-flight"), ("evasive_devices", "evasive-devices"),
    ("shell_job", "shell-job"), ("file_locks", "file-locks"), ("track_mem", "track-mem"),
    ("auto_dedup", "auto-dedup"), ("link_remap", "link-remap"), ("force_irmap", "force-irmap"),
    ("weak_sysctls", "weak-sysctls"), ("lazy_pages", "lazy-pages"), ("tls", "tls"),
    ("tls_no_cn_verify", "tls-no-cn-verify"), ("mntns_compat_mode", "mntns-compat-mode"),
    ("skip_file_rwx_check", "skip-file-rwx-check"), ("unprivileged", "unprivileged"),
    ("display_stats", "display-stats"), ("rst_sibling", "restore-sibling"), ("ext_sharing", "enable-external-sharing"),
    ("ext_masters", "enable-external-masters"), ("orphan_pts_master", "orphan-pts-master"),
)  # fmt: skip
#: Field and option that take one value.
_VALUES = (
    ("root", "root"), ("parent_img", "prev-images-dir"), ("cgroup_props", "cgroup-props"),
    ("cgroup_props_file", "cgroup-props-file"), ("cgroup_yard", "cgroup-yard"), ("freeze_cgroup", "freeze-cgroup"),
    ("timeout", "timeout"), ("ghost_limit", "ghost-limit"), ("lsm_profile", "lsm-profile"),
    ("lsm_mount_context", "lsm-mount-context"), ("tls_cacert", "tls-cacert"), ("tls_cacrl", "tls-cacrl"),
    ("tls_cert", "tls-cert"), ("tls_key", "tls-key"),
)  # fmt: skip
#: Field and option that may be given often.
_LISTS = (
    ("skip_mnt", "skip-mnt"), ("enable_fs", "enable-fs"), ("irmap_scan_paths", "irmap-scan-path"),
    ("external", "external"), ("cgroup_dump_controller", "cgroup-dump-controller"),
)  # fmt: skip
_CPU_CAPS = ((1, "fpu"), (2, "cpu"), (4, "ins"))
_CPU_CAP_ALL = 0xFFFFFFFF


def words_of(opts: m.criu_opts, place_of: Callable[[int], str]) -> list[str]:
    """The command line of *opts*.  UsageError for what cannot be.

    *place_of*: a path that leads to the directory behind a descriptor of the client's.
    """
    words = [f"--{option}" for field, option in _SWITCHES if getattr(opts, field)]
    said = {field.name for field, _ in opts.ListFields()}
    words += [f"--{option}={getattr(opts, field)}" for field, option in _VALUES if field in said]
    words += [f"--{option}={item}" for field, option in _LISTS for item in getattr(opts, field)]
    for part in (_directories, _objects, _enumerated, _page_server):
        words += part(opts, place_of)
    return words


def _directories(opts: m.criu_opts, place_of: Callable[[int], str]) -> list[str]:
    """Where images and log are; descriptors are the client's."""
    words = []
    if opts.images_dir_fd >= 0:
        words.append(f"--images-dir={place_of(opts.images_dir_fd)}")
    elif opts.HasField("images_dir"):
        words.append(f"--images-dir={opts.images_dir}")
    if opts.HasField("work_dir_fd"):
        words.append(f"--work-dir={place_of(opts.work_dir_fd)}")
    if opts.HasField("log_file"):
        if "/" in opts.log_file:
            raise UsageError(f"log_file {opts.log_file!r} is no plain name")
        words.append(f"--log-file={opts.log_file}")
    words.append(f"--verbosity={max(opts.log_level, 0)}")
    return words


def _objects(opts: m.criu_opts, place_of: Callable[[int], str]) -> list[str]:
    """What is outside of the tree, and what stands for it."""
    words = []
    if opts.ext_unix_sk:
        inodes = ",".join(str(each.inode) for each in opts.unix_sk_ino)
        words.append(f"--ext-unix-sk={inodes}" if inodes else "--ext-unix-sk")
    words += [f"--external=mnt[{each.key}]:{each.val}" for each in opts.ext_mnt]
    if opts.auto_ext_mnt:
        words.append("--external=mnt[]")
    words += [f"--external=veth[{each.if_in}]:{each.if_out}" for each in opts.veths]
    words += [f"--inherit-fd=fd[{each.fd}]:{each.key}" for each in opts.inherit_fd]
    for each in opts.join_ns:
        extra = f",{each.extra_opt}" if each.extra_opt else ""
        words.append(f"--join-ns={each.ns}:{each.ns_file}{extra}")
    words += [
        f"--cgroup-root={each.ctrl}:{each.path}" if each.HasField("ctrl") else f"--cgroup-root={each.path}"
        for each in opts.cg_root
    ]
    if opts.empty_ns & ~CLONE_NEWNET:
        raise UsageError(f"empty_ns {opts.empty_ns:#x}: only a network namespace can be left empty")
    if opts.empty_ns:
        words.append("--empty-ns=net")
    if opts.HasField("status_fd"):
        words.append(f"--status-fd={opts.status_fd}")
    return words


def _enumerated(opts: m.criu_opts, place_of: Callable[[int], str]) -> list[str]:
    """Numbers that are names on a command line."""
    words = []
    if opts.HasField("manage_cgroups_mode"):
        mode = _name_of(m.criu_cg_mode.Name, opts.manage_cgroups_mode, "manage_cgroups_mode")
        words.append("--manage-cgroups=" + {"cg_none": "none", "default": "soft"}.get(mode, mode))
    elif opts.HasField("manage_cgroups"):
        words.append("--manage-cgroups=" + ("soft" if opts.manage_cgroups else "ignore"))
    if opts.HasField("network_lock"):
        words.append("--network-lock=" + _name_of(m.criu_network_lock_method.Name, opts.network_lock, "network_lock"))
    if opts.HasField("pre_dump_mode"):
        mode = _name_of(m.criu_pre_dump_mode.Name, opts.pre_dump_mode, "pre_dump_mode")
        words.append("--pre-dump-mode=" + {"vm_read": "read"}.get(mode, mode))
    if opts.HasField("cpu_cap"):
        caps = ["all"] if opts.cpu_cap == _CPU_CAP_ALL else [name for bit, name in _CPU_CAPS if opts.cpu_cap & bit]
        words.append(f"--cpu-cap={','.join(caps or ['none'])}")
    return words


def _name_of(name: Callable[[int], str], number: int, field: str) -> str:
    try:
        return name(number).lower()
    except ValueError:
        raise UsageError(f"{field} {number} is not known") from None


def _page_server(opts: m.criu_opts, place_of: Callable[[int], str]) -> list[str]:
    if not opts.HasField("ps"):
        return []
    words = [] if opts.lazy_pages else ["--page-server"]
    if opts.ps.address:
        words.append(f"--address={opts.ps.address}")
    if opts.ps.port:
        words.append(f"--port={opts.ps.port}")
    if opts.ps.HasField("fd"):
        words.append(f"--ps-socket={opts.ps.fd}")
    return words
