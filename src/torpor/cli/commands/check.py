"""``torpor check``: what this machine can do, or what would stop a process from being checkpointed."""

from __future__ import annotations

import argparse
import sys

from torpor.base.errors import RefusedError
from torpor.base.ids import Pid
from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torpor.containers.names import Target
    from torpor.engine.dump.preflight import Findings

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
    """Give *parser* the description, the arguments and the options of ``torpor check``."""
    from torpor.cli import process_options

    parser.description = (
        "Without a name: a table of what this kernel and these privileges allow. With one: what would stop that "
        "process, job or container from being checkpointed, without stopping or touching it; of a container also which "
        "criu its engine runs. A container is looked at with the options that its runtime would give."
    )
    parser.add_argument(
        "target",
        nargs="?",
        metavar="PID|NAME",
        help="a process's id, a job's or a container's name, ENGINE:NAME, or a unit of systemd, UNIT.service or "
        "UNIT.scope",
    )
    parser.add_argument("--engine", help="podman, docker, containerd, lxc, runc, crun; job, pid")
    parser.add_argument("--json", action="store_true", help="as JSON")
    process_options.add(parser, process_options.CHECK)


def main(args: argparse.Namespace) -> int:
    """Print the table or the problems; 0 if there is nothing in the way."""
    return _check_machine(args.json) if args.target is None else _check_target(args)


def _check_machine(as_json: bool) -> int:
    import os

    from torpor.kernel.features import probe
    from torpor.kernel.procfs.status import read_status

    mask = read_status(Pid(os.getpid())).cap_effective
    rows = [(name, bool(mask >> number & 1), required, purpose) for number, name, required, purpose in _CAPABILITIES]
    rows += [(name, probe(name), required, purpose) for name, required, purpose in PURPOSES]
    lacking = [name for name, there, required, _ in rows if required and not there]
    if as_json:
        keys = ("name", "is_there", "is_required", "purpose")
        _print_json({"features": [dict(zip(keys, row, strict=True)) for row in rows], "lacking": lacking})
        return 1 if lacking else 0
    width = max(len(name) for name, *_ in rows)
    for name, there, required, purpose in rows:
        state = "yes" if there else "MISSING" if required else "no"
        print(f"{name:{width}}  {state:7}  {purpose}")
    print(f"\nNothing works without {', '.join(lacking)}." if lacking else "\nLooks good.")
    return 1 if lacking else 0


def _check_target(args: argparse.Namespace) -> int:
    from torpor.base.errors import UsageError
    from torpor.cli import process_options
    from torpor.containers import names

    target = names.resolve(args.target, args.engine)
    if not target.pid:
        raise UsageError(f"{target.label} does not run")
    if target.container is not None:
        return _check_container(target, args)
    found = _findings(target, process_options.keywords(args, process_options.CHECK))
    problems = [*(target.unit.problems() if target.unit is not None else ()), *found.problems]
    return _tell(args, args.target, [problem.describe() for problem in problems], found)


def insist(target: Target, told: dict[str, object], *, may_ask: bool) -> Findings:
    """What ``torpor check`` says of a process or job, before it is checkpointed.

    RefusedError with all that is in the way.  What will be lost is said, and somebody at a terminal is asked.
    """
    found = _findings(target, told)
    if found.problems:
        first, *others = found.problems
        for other in others:
            first.add_note(f"also {other}")
        raise first
    if not found.losses or not may_ask:
        return found
    text = "; ".join(found.losses)
    if not sys.stdin.isatty():
        raise RefusedError(f"{target.label} would lose something: {text}", hint="--yes goes on all the same")
    for loss in found.losses:
        sys.stderr.write(f"{target.label}: will be lost: {loss}\n")
    sys.stderr.write("Go on all the same? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RefusedError(f"{target.label}: nothing was done")
    return found


def _findings(target: Target, told: dict[str, object]) -> Findings:
    """Of a process or a job."""
    import torpor
    from torpor.base.records import replace
    from torpor.containers import membership
    from torpor.kernel.procfs.task import read_tree

    # The main process of a unit may be what watches over a container.
    for pid in read_tree(Pid(target.pid)) if target.unit is not None else [target.pid]:
        if target.job is None and (container := membership.container_of(pid)) is not None:
            return torpor.Findings((membership.refusal(pid, container),))
    found = torpor.examine(target.pid, **told)  # type: ignore[arg-type]
    if target.unit is None:
        return found
    return replace(found, losses=(*found.losses, *target.unit.losses()))


def _check_container(target: Target, args: argparse.Namespace) -> int:
    from torpor.base.records import replace
    from torpor.cli import process_options
    from torpor.cli.criu.dump import policies
    from torpor.cli.criu.parse import override, parse
    from torpor.containers import membership, names, preflight, survey
    from torpor.engine.dump.preflight import Findings, examine
    from torpor.engine.options import DumpOptions

    container = target.container
    assert container is not None
    runtime = names.ENGINES[container.engine].about(container)
    about: dict[str, object] = {"pid": target.pid, "state": container.state, "runtime": runtime.name}
    lines = [f"{target.label}: pid {target.pid}, {container.state}, runtime {runtime.name}"]
    criu = survey.criu_for(container.engine)
    lacking = [f"{problem.text} ({problem.remedy})" for problem in survey.problems_of_runtime(runtime.name)]
    if criu is None:
        lacking.append(f"{container.engine} finds no criu (torpor setup, as root, puts it where it looks)")
    else:
        own = "" if criu.is_torpor else ", which is not torpor's: it may refuse other things than are told here"
        lines.append(f"{target.label}: runs {criu.path} ({criu.version}){own}")
        about["criu"] = {"path": criu.path, "version": criu.version, "is_torpor": criu.is_torpor}
    if container.state == "paused":
        lacking.append("it is paused (unpause it)")
    inside = membership.container_of(target.pid)
    if inside is not None and inside.user:
        return _tell(
            args, target.label, [*lacking, membership.refusal(target.pid, inside).describe()], Findings(()), about
        )
    order = preflight.order_for(target.pid, runtime)
    options = parse([*order.words, *process_options.criu_words(args)])[0]
    if order.config_file:
        override(options, order.config_file)
    found = examine(target.pid, DumpOptions(policies=policies(options), entered=options.exec_processes))
    if container.engine == "podman":
        more, losses = names.PODMAN.foresee(container)
        found = replace(found, problems=(*found.problems, *more), losses=(*found.losses, *losses))
    problems = [*lacking, *(problem.describe() for problem in found.problems)]
    for line in lines if not args.json else ():
        print(line)
    return _tell(args, target.label, problems, found, about)


def _print_json(told: dict[str, object]) -> None:
    import json

    print(json.dumps(told, indent=1))


def _tell(
    args: argparse.Namespace,
    label: str,
    problems: Sequence[str],
    found: Findings,
    about: dict[str, object] | None = None,
) -> int:
    if args.json:
        lists = {"problems": problems, "losses": found.losses, "not_looked_at": found.unseen, "chances": found.chances}
        _print_json({"target": label, **(about or {}), **lists})
        return 1 if problems else 0
    for problem in problems:
        print(f"{label}: in the way: {problem}")
    for loss in found.losses:
        print(f"{label}: will be lost: {loss}")
    for text in found.chances:
        print(f"{label}: may be in the way: {text}")
    for text in found.unseen:
        print(f"{label}: not looked at: {text}")
    if not problems:
        print(f"{label}: nothing in the way")
    return 1 if problems else 0
