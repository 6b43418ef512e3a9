"""``criu_opts`` as the words of a ``criu`` command line.

There is one way by which options reach the engine, and one place that knows what they mean; what comes by RPC takes
that way too, in the words of criu(8).  What a command line cannot say (descriptors of the client's) is translated here.
"""

from __future__ import annotations

from collections.abc import Callable

from torpor.base.errors import UsageError
from torpor.base.typed import Any
from torpor.engine.option_table import FLAG, OPTIONS, SWITCH, Option
from torpor.images import messages as m
from torpor.kernel.namespaces import CLONE_NEWNET

#: Fields that are more than a value: they are translated below, or are no option (whom, whether to tell, what to do).
BY_HAND = frozenset(
    (
        "images_dir_fd", "images_dir", "work_dir_fd", "log_file", "log_level", "ext_unix_sk", "unix_sk_ino", "ext_mnt",
        "auto_ext_mnt", "veths", "inherit_fd", "join_ns", "cg_root", "empty_ns", "status_fd", "manage_cgroups_mode",
        "manage_cgroups", "network_lock", "pre_dump_mode", "cpu_cap", "ps", "pid", "config_file", "exec_cmd",
    )
)  # fmt: skip
_CPU_CAPS = ((1, "fpu"), (2, "cpu"), (4, "ins"))
_CPU_CAP_ALL = 0xFFFFFFFF
_SHOWN = 80


def words_of(opts: m.criu_opts, place_of: Callable[[int], str]) -> list[str]:
    """The command line of *opts*.  UsageError for what cannot be.

    *place_of*: a path that leads to the directory behind a descriptor of the client's.
    """
    words: list[str] = []
    said = {field.name for field, _ in opts.ListFields()}
    for option in OPTIONS:
        for field in option.rpc.split():
            if field in said and field not in BY_HAND:
                words += _plain(option, getattr(opts, field))
    for part in (_directories, _objects, _enumerated, _page_server):
        words += part(opts, place_of)
    for word in (*words, f"config_file {opts.config_file}", *(f"exec_cmd {each}" for each in opts.exec_cmd)):
        if "\0" in word:  # which no command line can hold
            raise UsageError(f"a zero byte in a string: {word[:_SHOWN]!r}")
    return words


def _plain(option: Option, value: Any) -> list[str]:
    """A switch, for which true and false are the same thing said; a value, also if it is the default; or several."""
    if option.takes in (FLAG, SWITCH):
        return [f"--{option.name}"] if value else []
    return [f"--{option.name}={item}" for item in (value if option.is_many else (value,))]


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
    # A dump that gives its pages later is asked for them from anywhere, as CRIU's is.
    if opts.ps.address and not opts.lazy_pages:
        words.append(f"--address={opts.ps.address}")
    if opts.ps.port:
        words.append(f"--port={opts.ps.port}")
    if opts.ps.HasField("fd"):
        words.append(f"--ps-socket={opts.ps.fd}")
    return words
