"""``torpor check``: what this machine can do, or what would stop a process from being checkpointed."""

from __future__ import annotations

import argparse

from torpor.base.records import replace
from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.cli.criu.options import Options
    from torpor.containers.names import Target

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
#: What a checkpoint may be allowed, and so does not stand in its way.
ALLOWANCES = {
    "tcp-established": "TCP connections may be there",
    "tcp-close": "TCP connections may be lost",
    "file-locks": "file locks may be held",
    "link-remap": "deleted files may have other names",
    "external-unix": "unix sockets may lead elsewhere",
    "external-pipes": "pipes may lead elsewhere",
    "shell-job": "it may belong to a terminal's session",
}
#: criu(8) always allows it, and so do container engines, who hold the other ends.
_PIPES = "external-pipes"
_CRIUS_WORDS = {"--external-unix": "--ext-unix-sk"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.description = (
        "Without a name: a table of what this kernel and these privileges allow. With one: what would stop that "
        "process, job or container from being checkpointed, without stopping or touching it; of a container also which "
        "criu its engine runs. A container is looked at with the options that its runtime would give."
    )
    parser.add_argument(
        "target", nargs="?", metavar="PID|NAME", help="a process's id, a job's or a container's name, or ENGINE:NAME"
    )
    parser.add_argument("--engine", help="podman, docker, containerd, lxc, runc, crun; job, pid")
    for name, text in ALLOWANCES.items():
        parser.add_argument(f"--{name}", action="store_true", help=f"{text}, as with torpor checkpoint --{name}")
    parser.add_argument(
        "--exec-processes", choices=("refuse", "carry", "leave-out"), help="as with torpor checkpoint --exec-processes"
    )


def main(args: argparse.Namespace) -> int:
    """Print the table or the problems; 0 if there is nothing in the way."""
    return _check_machine() if args.target is None else _check_target(args)


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


def _check_target(args: argparse.Namespace) -> int:
    from torpor.base.errors import UsageError
    from torpor.cli.commands.checkpoint import GHOST_LIMIT_MIB
    from torpor.containers import names

    target = names.resolve(args.target, args.engine)
    if not target.pid:
        raise UsageError(f"{target.label} does not run")
    if target.container is not None:
        return _check_container(target, args)
    options = _options(args, ["--file-locks", f"--ghost-limit={GHOST_LIMIT_MIB}M"])
    return _tell(args.target, _problems(target.pid, options, external_pipes=args.external_pipes))


def _check_container(target: Target, args: argparse.Namespace) -> int:
    from torpor.cli.criu.parse import override
    from torpor.containers import names, preflight, survey

    container = target.container
    assert container is not None
    runtime = names.ENGINES[container.engine].about(container)
    print(f"{target.label}: pid {target.pid}, {container.state}, runtime {runtime.name}")
    criu = survey.criu_for(container.engine)
    lacking = [f"{problem.text} ({problem.remedy})" for problem in survey.problems_of_runtime(runtime.name)]
    if criu is None:
        lacking.append(f"{container.engine} finds no criu (torpor setup, as root, puts it where it looks)")
    else:
        own = "" if criu.is_torpor else ", which is not torpor's: it may refuse other things than are told here"
        print(f"{target.label}: runs {criu.path} ({criu.version}){own}")
    if container.state == "paused":
        lacking.append("it is paused (unpause it)")
    order = preflight.order_for(target.pid, runtime)
    options = _options(args, list(order.words))
    if order.config_file:
        override(options, order.config_file)
    return _tell(target.label, [*lacking, *_problems(target.pid, options)])


def _options(args: argparse.Namespace, words: list[str]) -> Options:
    """What criu's command line would say, this command's switches included."""
    from torpor.cli.criu.parse import parse

    given = [f"--{name}" for name in ALLOWANCES if name != _PIPES and getattr(args, name.replace("-", "_"))]
    if args.exec_processes:
        given.append(f"--exec-processes={args.exec_processes}")
    return parse([*words, *(_CRIUS_WORDS.get(word, word) for word in given)])[0]


def _problems(pid: int, options: Options, *, external_pipes: bool = True) -> list[str]:
    from torpor.cli.criu.dump import file_policy
    from torpor.engine import preflight

    policy = replace(file_policy(options), external_pipes=external_pipes)
    found = preflight.problems(pid, policy, entered=options.exec_processes)
    return [problem.describe() for problem in found]


def _tell(label: str, found: list[str]) -> int:
    for problem in found:
        print(f"{label}: in the way: {problem}")
    if not found:
        print(f"{label}: nothing in the way")
    return 1 if found else 0
