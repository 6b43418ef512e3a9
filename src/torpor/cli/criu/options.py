"""A parsed command line of criu(8): the table of :mod:`torpor.engine.option_table` as this command has it.

This module is on the way of every dump, so it is plain Python without imports that cost; :mod:`argparse` alone would
take a quarter of a small dump.
"""

from __future__ import annotations

import os

from torpor.engine.option_table import (
    FLAG,
    HARMLESS,
    MAYBE,
    SWITCH,
    USED,
    VALUE,
    Option,
    iter_words,
)

__all__ = ["FLAG", "HARMLESS", "MAYBE", "OPTIONS", "SWITCH", "USED", "VALUE", "Option", "Options"]

OPTIONS = tuple(iter_words())
#: Modes of ``--manage-cgroups`` where nothing is said (torpor.objects.cgroup.model, which need not be loaded yet).
_SOFT, _IGNORE = "soft", "ignore"


class Options:
    """A command line (with its configuration files), parsed.  A field stands for the option of its name.

    What each is where nothing is said, the table knows; here is only what type it has.
    """

    # What every command has.
    images_dir: str
    work_dir: str
    log_file: str
    verbosity: int
    pidfile: str
    display_stats: bool
    log_pid: bool
    libdir: str
    unprivileged: bool
    help: bool
    version: bool
    config: str
    no_default_config: bool
    deprecated: bool
    # Dump.
    tree: int
    leave_running: bool
    leave_stopped: bool
    ghost_limit: int | None
    ghost_fiemap: bool
    link_remap: bool
    file_locks: bool
    ext_unix_sk: bool
    timeout: int
    exec_processes: str
    snapshot: str
    freeze_cgroup: str
    track_mem: bool
    prev_images_dir: str
    auto_dedup: bool
    pre_dump_mode: str
    force_irmap: bool
    skip_in_flight: bool
    allow_uprobes: bool
    lazy_pages: bool
    stream: bool
    # Restore.
    restore_detached: bool
    restore_sibling: bool
    exec_cmd: bool
    weak_sysctls: bool
    skip_file_rwx_check: bool
    file_validation: str
    rewind_files: bool
    lsm_profile: str
    lsm_map: list[tuple[str, str]]
    lsm_mount_context: str
    status_fd: int
    verify: bool
    # Both.
    shell_job: bool
    orphan_pts_master: bool
    root: str
    evasive_devices: bool
    tcp_established: bool
    tcp_close: bool
    network_lock: str
    cpu_cap: str
    mntns_compat_mode: bool
    enable_external_sharing: bool
    enable_external_masters: bool
    manage_cgroups: str
    cgroup_props: str
    cgroup_props_file: str
    cgroup_yard: str
    # Page server and service.
    page_server: bool
    address: str
    socket_mode: int
    socket_group: str
    port: int
    ps_socket: int
    tls: bool
    tls_no_cn_verify: bool
    tls_cacert: str
    tls_cacrl: str
    tls_cert: str
    tls_key: str
    # Check.
    extra: bool
    experimental: bool
    all: bool
    feature: str
    # What may be given often.
    external: list[str]
    inherit_fd: list[tuple[int, str]]
    action_script: list[str]
    close: list[int]
    join_ns: list[tuple[str, str, str]]
    empty_ns: list[str]
    skip_mnt: list[str]
    enable_fs: list[str]
    cgroup_root: list[tuple[str | None, str]]
    cgroup_dump_controller: list[str]
    irmap_scan_path: list[str]
    #: What is no option.
    command: list[str]

    def __init__(self) -> None:
        self.command = []
        for option in OPTIONS:
            setattr(self, option.field, [] if option.is_many else option.default)

    @property
    def all_external(self) -> tuple[str, ...]:
        """``--external``, and the older options that mean the same."""
        automatic = "".join(
            letter
            for letter, wanted in (("s", self.enable_external_sharing), ("m", self.enable_external_masters))
            if wanted
        )
        return tuple(
            f"{item}:{automatic}" if item == "mnt[]" and automatic else item for item in dict.fromkeys(self.external)
        )

    @property
    def cgroup_mode(self) -> str:
        """``--manage-cgroups``; where nothing is said, only root manages them, as criu(8) has it."""
        return self.manage_cgroups or (_IGNORE if self.unprivileged or os.geteuid() else _SOFT)
