"""``criu dump``."""

from __future__ import annotations

import os

from torpor.base import log
from torpor.base.errors import TorporError
from torpor.cli.criu.options import Options
from torpor.cli.criu.scripts import notifier
from torpor.engine.dump.run import dump
from torpor.engine.options import DumpOptions, Notify
from torpor.objects.cgroup.model import DEFAULT, IGNORE, CgroupPolicy
from torpor.objects.files.model import FilePolicy


def main(options: Options) -> int:
    """Dump the tree of ``--tree``; the exit code."""
    run(options)
    return 0


def run(options: Options, client: Notify | None = None) -> None:
    """Dump the tree of ``--tree``.  *client*: whom to tell what action scripts are told."""
    dump(
        options.tree,
        options.images_dir,
        DumpOptions(
            made_by="criu dump" if client is None else "criu for a container engine",
            leave_running=options.leave_running,
            leave_stopped=options.leave_stopped,
            stats_directory=options.work_dir,
            timeout_s=options.timeout,
            entered=options.exec_processes,
            notify=notifier(options, client),
            files=file_policy(options),
            cgroups=cgroup_policy(options),
        ),
    )
    if options.display_stats:
        from torpor.cli.criu.show_stats import show_dump

        try:
            show_dump(options.work_dir)
        except TorporError as error:
            log.warn(f"the checkpoint is complete, but its statistics cannot be shown: {error}")


def file_policy(options: Options) -> FilePolicy:
    """What the command line says about files."""
    return FilePolicy(
        ghost_limit=options.ghost_limit,
        link_remap=options.link_remap,
        skip_in_flight=options.skip_in_flight,
        skip_file_rwx_check=options.skip_file_rwx_check,
        file_validation=options.file_validation,
        rewind_files=(lambda *_: True) if options.rewind_files else None,
        file_locks=options.file_locks,
        ext_unix=options.ext_unix_sk,
        external_pipes=True,
        orphan_pts_master=options.orphan_pts_master,
        tcp_close=options.tcp_close,
        tcp_established=options.tcp_established,
        network_lock=options.network_lock,
        shell_job=options.shell_job,
        external=options.all_external,
        lsm_mount_context=options.lsm_mount_context,
        skipped_mounts=tuple(options.skip_mnt),
        enabled_filesystems=tuple(name for text in options.enable_fs for name in text.split(",")),
        evasive_devices=options.evasive_devices,
        root=options.root or "/",
        empty_net="net" in options.empty_ns,
        weak_sysctls=options.weak_sysctls,
    )


def cgroup_policy(options: Options) -> CgroupPolicy:
    """What the command line says about control groups; if nothing, they are managed as criu(8) has it: by root only."""
    mode = options.manage_cgroups or (IGNORE if options.unprivileged or os.geteuid() else DEFAULT)
    return CgroupPolicy(
        mode=mode,
        roots=tuple(options.cgroup_root),
        props=options.cgroup_props,
        props_file=options.cgroup_props_file,
        controllers=tuple(options.cgroup_dump_controller),
        yard=options.cgroup_yard,
        freezer=options.freeze_cgroup,
    )
