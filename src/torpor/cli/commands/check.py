"""``torpor check``: what this machine can do, or what would stop a process from being checkpointed."""

from __future__ import annotations

import argparse

#: Feature, whether nothing works without it, and what it is needed for.
PURPOSES = (
    ("clone3_set_tid", True, "restoring processes under their old pids"),
    ("pidfd_store", True, "reading the descriptors of other processes"),
    ("mnt_id", True, "telling on which mount a file lies"),
    ("seccomp_suspend", False, "processes with seccomp filters"),
    ("seccomp_filters", False, "reading seccomp filters"),
    ("get_rseq_conf", False, "restartable sequences (every program with a current C library)"),
    ("pagemap_scan", False, "finding the pages in use quickly"),
    ("pagemap_scan_guard_pages", False, "guard pages inside mappings"),
    ("fdinfo_lock", False, "file locks"),
    ("timerfd", False, "timerfd: expired ticks"),
    ("timer_cr_ids", False, "POSIX timers with high numbers, quickly"),
    ("kcmp_epoll", False, "epoll: descriptors that were closed or moved"),
    ("sk_unix_file", False, "unix sockets bound to files"),
    ("tcp_half_closed", False, "TCP connections"),
    ("sockopt_buf_lock", False, "sizes of socket buffers set by hand"),
    ("ns_pid", False, "pidfds and pid namespaces"),
    ("userns", False, "user namespaces"),
    ("cgroupns", False, "cgroup namespaces"),
    ("timens", False, "time namespaces"),
    ("move_mount_set_group", False, "shared mounts"),
    ("memfd_hugetlb", False, "memfd of huge pages"),
    ("uffd", False, "memory on demand"),
    ("nftables", False, "holding back packets while a process sleeps"),
)
_CAPABILITIES = (
    (19, "CAP_SYS_PTRACE", True, "stopping and reading other processes"),
    (40, "CAP_CHECKPOINT_RESTORE", False, "pids and executables at restore, without CAP_SYS_ADMIN"),
    (21, "CAP_SYS_ADMIN", False, "namespaces, mounts, seccomp"),
    (24, "CAP_SYS_RESOURCE", False, "raising hard limits"),
    (12, "CAP_NET_ADMIN", False, "TCP connections"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.description = (
        "Without PID: a table of what this kernel and these privileges allow. With PID: what would stop that process "
        "from being checkpointed, without stopping or touching it."
    )
    parser.add_argument("target", nargs="?", metavar="PID|NAME", help="a process's id, or a job's name")


def main(args: argparse.Namespace) -> int:
    """Print the table or the problems; 0 if there is nothing in the way."""
    return _check_machine() if args.target is None else _check_process(args.target)


def _check_machine() -> int:
    import os

    from torpor.kernel.features import probe
    from torpor.kernel.procfs.status import read_status

    mask = read_status(os.getpid()).cap_effective
    rows = [(name, bool(mask >> number & 1), required, purpose) for number, name, required, purpose in _CAPABILITIES]
    rows += [(name, probe(name), required, purpose) for name, required, purpose in PURPOSES]
    width = max(len(name) for name, *_ in rows)
    for name, there, required, purpose in rows:
        state = "yes" if there else "MISSING" if required else "no"
        print(f"{name:{width}}  {state:7}  {purpose}")
    lacking = [name for name, there, required, _ in rows if required and not there]
    print(f"\nNothing works without {', '.join(lacking)}." if lacking else "\nLooks good.")
    return 1 if lacking else 0


def _check_process(target: str) -> int:
    import torpor
    from torpor.engine import jobs

    pid = int(target) if target.isdigit() else jobs.find(target).pid
    found = torpor.problems(pid)
    for problem in found:
        print(problem.describe())
    if not found:
        print(f"{target}: nothing in the way")
    return 1 if found else 0
