"""Every option of criu(8): its name, what it takes, and what becomes of it here.

This module is on the way of every dump, so it is plain Python without imports; :mod:`argparse` alone would cost a
quarter of a small dump.

``USED`` options reach the engine.  ``HARMLESS`` ones choose between ways that do not exist here, or allow what is
allowed anyway.  Everything else names what is missing: it is refused as soon as it asks for something.
"""

from __future__ import annotations

from collections.abc import Callable

#: What an option takes: nothing; nothing, with a ``--no-`` form; a value; a value or none.
FLAG, SWITCH, VALUE, MAYBE = "flag", "switch", "value", "maybe"

USED = "used"
HARMLESS = "harmless"

_PAGE_SERVER = "sending pages to another machine is not done yet"
_LAZY = "restoring memory on demand is not done yet"
_TLS = HARMLESS  # it only says how --page-server talks


class Option:
    """One row of the table."""

    __slots__ = ("field", "name", "parse", "short", "support", "takes")

    def __init__(
        self,
        name: str,
        takes: str,
        support: str,
        *,
        short: str = "",
        field: str = "",
        parse: Callable[[str], object] | None = None,
    ) -> None:
        self.name, self.takes, self.support, self.short = name, takes, support, short
        self.field = field or name.replace("-", "_")
        self.parse = parse


class Options:
    """A command line (with its configuration files), parsed.  A field stands for the option of its name."""

    # What every command has.
    images_dir: str = "."
    work_dir: str = ""
    log_file: str = ""
    verbosity: int = 2
    pidfile: str = ""
    display_stats: bool = False
    log_pid: bool = False
    libdir: str = ""
    unprivileged: bool = False
    help: bool = False
    version: bool = False
    config: str = ""
    no_default_config: bool = False
    deprecated: bool = False
    # Dump.
    tree: int = 0
    leave_running: bool = False
    leave_stopped: bool = False
    ghost_limit: int | None = None
    ghost_fiemap: bool = False
    link_remap: bool = False
    file_locks: bool = False
    ext_unix_sk: bool = False
    timeout: int = 10
    exec_processes: str = "refuse"
    freeze_cgroup: str = ""
    track_mem: bool = False
    prev_images_dir: str = ""
    auto_dedup: bool = False
    pre_dump_mode: str = "splice"
    force_irmap: bool = False
    skip_in_flight: bool = False
    allow_uprobes: bool = False
    lazy_pages: bool = False
    stream: bool = False
    # Restore.
    restore_detached: bool = False
    restore_sibling: bool = False
    exec_cmd: bool = False
    weak_sysctls: bool = False
    skip_file_rwx_check: bool = False
    file_validation: str = "buildid"
    rewind_files: bool = False
    lsm_profile: str = ""
    lsm_mount_context: str = ""
    status_fd: int = -1
    verify: bool = True
    # Both.
    shell_job: bool = False
    orphan_pts_master: bool = False
    root: str = ""
    evasive_devices: bool = False
    tcp_established: bool = False
    tcp_close: bool = False
    network_lock: str = ""
    cpu_cap: str = ""
    mntns_compat_mode: bool = False
    enable_external_sharing: bool = False
    enable_external_masters: bool = False
    manage_cgroups: str = ""
    cgroup_props: str = ""
    cgroup_props_file: str = ""
    cgroup_yard: str = ""
    # Page server and service.
    page_server: bool = False
    address: str = ""
    socket_mode: int = 0o600
    socket_group: str = ""
    port: int = 0
    ps_socket: int = -1
    tls: bool = False
    tls_no_cn_verify: bool = False
    tls_cacert: str = ""
    tls_cacrl: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    # Check.
    extra: bool = False
    experimental: bool = False
    all: bool = False
    feature: str = ""

    def __init__(self) -> None:
        self.external: list[str] = []
        self.inherit_fd: list[tuple[int, str]] = []
        self.action_script: list[str] = []
        self.close: list[int] = []
        self.join_ns: list[tuple[str, str, str]] = []
        self.empty_ns: list[str] = []
        self.skip_mnt: list[str] = []
        self.enable_fs: list[str] = []
        self.cgroup_root: list[tuple[str | None, str]] = []
        self.cgroup_dump_controller: list[str] = []
        self.irmap_scan_path: list[str] = []
        self.command: list[str] = []

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


def _pid(text: str) -> int:
    return _number(text, low=1)


def _number(text: str, low: int = 0) -> int:
    value = int(text)
    if value < low:
        raise ValueError("too small")
    return value


def _mode(text: str) -> int:
    """``0660``: octal."""
    mode = int(text, 8)
    if not 0 <= mode <= 0o777:
        raise ValueError("must look like 0660")
    return mode


def _size(text: str) -> int:
    """``10``, ``8M``, ``1G``: bytes."""
    shift = {"K": 10, "M": 20, "G": 30}.get(text[-1:].upper(), 0)
    return _number(text[:-1] if shift else text) << shift


def _verbosity(text: str) -> int:
    # A level that is no number is 0, as for CRIU; its own test suite says `-verbosity=0`, which getopt takes for
    # the level "erbosity=0".
    return int(text) if text.isascii() and text.isdigit() else 0


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return text

    return parse


def inherited(text: str) -> tuple[int, str]:
    """``fd[NUM]:KEY``."""
    number, colon, key = text.removeprefix("fd[").partition("]:")
    if not text.startswith("fd[") or not colon or not key:
        raise ValueError("must look like fd[NUM]:KEY")
    return _number(number), key


def _join_ns(text: str) -> tuple[str, str, str]:
    """``KIND:PID`` or ``KIND:PATH``, and what may follow a comma (a user namespace's uid and gid)."""
    kind, colon, rest = text.partition(":")
    path, _, extra = rest.partition(",")
    if not colon or not path:
        raise ValueError("must look like KIND:PATH")
    return kind, path, extra


def _veth(text: str) -> str:
    inside, equals, outside = text.partition("=")
    if not equals:
        raise ValueError("must look like IN=OUT")
    return f"veth[{inside}]:{outside}"


def _mount(text: str) -> str:
    if text == "auto":
        return "mnt[]"
    key, colon, value = text.partition(":")
    if not colon:
        raise ValueError("must look like KEY:VALUE")
    return f"mnt[{key}]:{value}"


def _cgroup_mode(text: str) -> str:
    return _one_of("none", "props", "soft", "full", "strict", "ignore")(text or "soft")


def _cgroup_root(text: str) -> tuple[str | None, str]:
    """``[CONTROLLER:]/PATH``; an empty name is that of v2."""
    name, colon, path = text.rpartition(":")
    if not path.startswith("/"):
        raise ValueError("must look like [CONTROLLER:]/PATH")
    return (name if colon else None), path


def _cpu_caps(text: str) -> str:
    for word in text.split(","):
        if word.removeprefix("^") not in ("", "all", "none", "cpu", "fpu", "ins"):
            raise ValueError(f"{word!r} is no CPU capability")
    return text or "all"


#: The table.  Options that may be given often have a list of that name in ``Options``.
OPTIONS = (
    Option("tree", VALUE, USED, short="t", parse=_pid),
    Option("leave-stopped", FLAG, USED, short="s"),
    Option("leave-running", FLAG, USED, short="R"),
    Option("restore-detached", SWITCH, USED, short="d"),
    Option("daemon", SWITCH, USED, field="restore_detached"),
    Option("restore-sibling", SWITCH, USED, short="S"),
    Option("images-dir", VALUE, USED, short="D"),
    Option("work-dir", VALUE, USED, short="W"),
    Option("log-file", VALUE, USED, short="o"),
    Option("verbosity", MAYBE, USED, short="v", parse=_verbosity),
    Option("log-pid", SWITCH, HARMLESS),  # there is one process, so one log
    Option("display-stats", SWITCH, USED),
    Option("pidfile", VALUE, USED),
    Option("action-script", VALUE, USED),
    Option("exec-cmd", FLAG, USED),
    Option("close", VALUE, USED, parse=_number),
    Option("help", FLAG, USED, short="h"),
    Option("version", FLAG, USED, short="V"),
    Option("config", VALUE, USED),
    Option("no-default-config", FLAG, USED),
    Option("deprecated", SWITCH, HARMLESS),
    Option("unprivileged", SWITCH, HARMLESS),  # what is not permitted fails where it is needed
    Option("libdir", VALUE, HARMLESS, short="L"),
    Option("root", VALUE, USED, short="r"),
    Option("external", VALUE, USED),
    Option("ext-mount-map", VALUE, USED, short="M", field="external", parse=_mount),
    Option("veth-pair", VALUE, USED, field="external", parse=_veth),
    Option("inherit-fd", VALUE, USED, parse=inherited),
    Option("ext-unix-sk", MAYBE, USED, short="x"),
    Option("shell-job", SWITCH, USED, short="j"),
    Option("orphan-pts-master", SWITCH, USED),
    Option("file-locks", SWITCH, USED, short="l"),
    Option("link-remap", SWITCH, USED),
    Option("ghost-limit", VALUE, USED, parse=_size),
    Option("ghost-fiemap", SWITCH, HARMLESS),  # one way to find holes; ours is SEEK_DATA
    Option("evasive-devices", SWITCH, USED),
    Option("tcp-established", SWITCH, USED),
    Option("tcp-close", SWITCH, USED),
    Option("skip-in-flight", SWITCH, USED),
    Option("timeout", VALUE, USED, parse=_number),
    Option("freeze-cgroup", VALUE, USED),
    Option("exec-processes", VALUE, USED, parse=_one_of("refuse", "carry", "leave-out")),
    Option("force-irmap", SWITCH, HARMLESS),  # watches are found by their paths in any case
    Option("irmap-scan-path", VALUE, HARMLESS),
    Option("allow-uprobes", SWITCH, HARMLESS),
    Option("weak-sysctls", SWITCH, USED),
    Option("skip-file-rwx-check", SWITCH, USED),
    Option("file-validation", VALUE, USED, parse=_one_of("filesize", "buildid")),
    Option("rewind-files", SWITCH, USED),
    Option("verify", SWITCH, USED),  # ours: --no-verify takes images that are not as they were written
    Option("cpu-cap", MAYBE, USED, parse=_cpu_caps),
    Option("network-lock", VALUE, USED, parse=_one_of("iptables", "nftables", "skip")),
    Option("mntns-compat-mode", SWITCH, HARMLESS),
    Option("enable-external-sharing", FLAG, USED),
    Option("enable-external-masters", FLAG, USED),
    Option("track-mem", SWITCH, HARMLESS),  # only a dump with --prev-images-dir asks what changed
    Option("auto-dedup", SWITCH, HARMLESS),
    Option("pre-dump-mode", VALUE, HARMLESS, parse=_one_of("splice", "read")),
    Option("status-fd", VALUE, HARMLESS, parse=_number),
    Option("prev-images-dir", VALUE, "dumping only what changed is not done yet"),
    Option("lazy-pages", FLAG, _LAZY),
    Option("stream", SWITCH, "streamed images are not done yet"),
    Option("skip-mnt", VALUE, USED),
    Option("enable-fs", VALUE, USED),
    Option("manage-cgroups", MAYBE, USED, parse=_cgroup_mode),
    Option("cgroup-root", VALUE, USED, parse=_cgroup_root),
    Option("cgroup-props", VALUE, USED),
    Option("cgroup-props-file", VALUE, USED),
    Option("cgroup-dump-controller", VALUE, USED),
    Option("cgroup-yard", VALUE, USED),
    Option("lsm-profile", VALUE, USED),
    Option("lsm-mount-context", VALUE, USED),
    Option("empty-ns", VALUE, USED, parse=_one_of("net")),
    Option("join-ns", VALUE, USED, short="J", parse=_join_ns),
    Option("page-server", SWITCH, _PAGE_SERVER),
    Option("address", VALUE, HARMLESS),
    Option("socket-mode", VALUE, USED, parse=_mode),  # ours: who may connect to criu service
    Option("socket-group", VALUE, USED),
    Option("port", VALUE, HARMLESS, parse=_pid),
    Option("ps-socket", VALUE, _PAGE_SERVER, parse=_number),
    Option("tls", SWITCH, _TLS),
    Option("tls-no-cn-verify", FLAG, _TLS),
    Option("tls-cacert", VALUE, _TLS),
    Option("tls-cacrl", VALUE, _TLS),
    Option("tls-cert", VALUE, _TLS),
    Option("tls-key", VALUE, _TLS),
    Option("extra", SWITCH, USED),
    Option("experimental", SWITCH, USED),
    Option("all", FLAG, USED),
    Option("feature", VALUE, USED),
)


def missing(options: Options) -> list[str]:
    """One line for each option that asks for what is not done yet."""
    lines = []
    for option in OPTIONS:
        if option.support in (USED, HARMLESS):
            continue
        asked = getattr(options, option.field)
        if asked and asked != getattr(Options, option.field, None) and asked not in ("none", "ignore"):
            lines.append(f"--{option.name}: {option.support}")
    return lines
