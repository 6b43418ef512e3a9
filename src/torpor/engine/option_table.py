"""Every option, once: its names, what it takes, its defaults, who has it, and which policy it sets.

Four faces read this table: the ``criu`` command with its configuration files, CRIU's RPC, the ``torpor`` command, and
the functions of :mod:`torpor`.  Help, manual pages, completions and docs/support-matrix.md are made of it.

**Defaults.**  There are two sets, because there are two kinds of callers, and each row says why where they differ.
Those of ``criu`` and of RPC speak to CRIU and rely on what it does where nothing is said: a container engine has no
option of its own for a ghost limit, and one that does not allow file locks expects a refusal.  People, at a command
line or in Python (always alike), get what most programs need, as long as nothing is lost by it without a word.  What
the policies' own classes have as defaults is used by nobody: a face sets all of their fields.

This is on the way of every dump, so it is plain Python, without imports that cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torpor.base.typed import Any
from torpor.engine import option_words as to

#: What an option of criu(8) takes: nothing; nothing, with a ``--no-`` form; a value; a value or none.
FLAG, SWITCH, VALUE, MAYBE = "flag", "switch", "value", "maybe"
#: criu(8) has no such option; its callers get the default.
NO_WORD = ""

#: The option reaches the engine; it chooses between ways that do not exist here, or allows what is allowed anyway.
USED, HARMLESS = "used", "harmless"

#: Commands of torpor, and the functions that do the same: ``torpor.examine``, ``dump``, ``restore``.
CHECK, CHECKPOINT, RESTORE = "check", "checkpoint", "restore"
EVERYWHERE, BEFORE = (CHECK, CHECKPOINT, RESTORE), (CHECK, CHECKPOINT)

_TOLD = "as it is"


class People:
    """How people have an option: ``torpor NAME`` (at these commands), and an argument of Python's functions.

    ``default``: in the form of the argument; ``why``: the reason, where it is not CRIU's.  ``value``: how what it takes
    is called, "" for a switch.  ``only_python``: no option of the commands.  ``text``: if it is not the row's.
    """

    __slots__ = ("at", "choices", "default", "keyword", "name", "only_python", "restored", "text", "value", "why")

    def __init__(
        self,
        at: tuple[str, ...] = EVERYWHERE,
        default: object = _TOLD,
        *,
        why: str = "",
        name: str = "",
        keyword: str = "",
        text: str = "",
        restored: str = "",
        value: str = "",
        choices: tuple[str, ...] = (),
        only_python: bool = False,
    ) -> None:
        self.at, self.default, self.why, self.name, self.keyword = at, default, why, name, keyword
        self.text, self.restored, self.value, self.choices = text, restored, value, choices
        self.only_python = only_python


class Option:
    """One row.

    ``takes``, ``short``, ``parse`` and ``default`` are criu(8)'s; a tuple as default: it may be given often.  ``field``
    holds it in a parsed command line, ``read`` is what is taken from there (``field``, if nothing else is said).
    ``rpc``: the fields of criu_opts.  ``sets``: the fields of policies and options of the engine, to which ``convert``
    leads.  ``note``: what a user of CRIU should know.
    """

    __slots__ = (
        "convert", "default", "field", "name", "note", "parse", "people", "read", "rpc", "sets", "short", "support",
        "takes", "text",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        takes: str,
        default: object,
        text: str,
        *,
        support: str = USED,
        short: str = "",
        field: str = "",
        read: str = "",
        parse: Callable[[str], object] | None = None,
        convert: Callable[[Any], object] | None = None,
        rpc: str = "",
        sets: str = "",
        people: People | None = None,
        note: str = "",
    ) -> None:
        self.name, self.takes, self.default, self.text, self.support, self.short = (
            name, takes, default, text, support, short,
        )  # fmt: skip
        self.field = field or name.replace("-", "_")
        self.read = read or self.field
        self.parse, self.convert, self.rpc, self.people, self.note = parse, convert, rpc, people, note
        self.sets = sets

    @property
    def is_many(self) -> bool:
        """Whether it may be given several times."""
        return isinstance(self.default, tuple)

    @property
    def keyword(self) -> str:
        """The argument's name in Python."""
        return (self.people.keyword or self.people.name.replace("-", "_") if self.people else "") or self.field

    @property
    def peoples_default(self) -> object:
        """In the form of Python's argument."""
        if self.people is not None and self.people.default is not _TOLD:
            return self.people.default
        return self.as_set(self.default)

    def as_set(self, value: Any) -> object:
        """What *value*, in the form of a command line, is to whom it is set."""
        if self.convert is not None:
            return self.convert(value)
        return tuple(value) if isinstance(value, list) else value


#: The table, in the order of the help.
OPTIONS = (
    Option("tree", VALUE, 0, "dump this process and everything below it", short="t", parse=to.pid, rpc="pid"),
    Option("leave-running", FLAG, False, "let the tasks run on after the dump", short="R", rpc="leave_running",
           sets="dump.leave_running", people=People((CHECKPOINT,), text="it goes on after the checkpoint")),
    Option("leave-stopped", FLAG, False, "leave the tasks stopped after the dump or restore", short="s",
           rpc="leave_stopped", sets="dump.leave_stopped restore.leave_stopped",
           people=People((CHECKPOINT, RESTORE), text="it is left stopped, as by SIGSTOP")),
    Option("restore-detached", SWITCH, False, "do not wait for the restored tasks: they become children of init",
           short="d"),
    Option("daemon", SWITCH, False, "as --restore-detached", field="restore_detached"),
    Option("restore-sibling", SWITCH, False, "the restored root becomes a child of our parent", short="S",
           rpc="rst_sibling", sets="restore.sibling", people=People((RESTORE,), keyword="sibling", only_python=True)),
    Option("images-dir", VALUE, ".", "where the images are (default: the current directory)", short="D",
           rpc="images_dir_fd images_dir"),
    Option("work-dir", VALUE, "", "where logs, pid files and statistics go (default: --images-dir)", short="W",
           rpc="work_dir_fd", sets="dump.stats_directory restore.stats_directory"),
    Option("log-file", VALUE, "", "the log; - is standard error", short="o", rpc="log_file"),
    Option("verbosity", MAYBE, 2, "how much is logged, 0 to 4; -v four times, or -v4, is all", short="v",
           parse=to.verbosity, rpc="log_level"),
    Option("log-pid", SWITCH, False, "one log a process", support=HARMLESS, note="there is one process, so one log"),
    Option("display-stats", SWITCH, False, "print statistics at the end", rpc="display_stats"),
    Option("pidfile", VALUE, "", "write the pid of the root, or of the service, to this file"),
    Option("action-script", VALUE, (), "run this at each stage, which CRTOOLS_SCRIPT_ACTION names",
           note="a script that fails ends the dump or restore; by RPC the client is told (notify_scripts)"),
    Option("exec-cmd", FLAG, False, "after the restore become the command behind --", rpc="exec_cmd"),
    Option("close", VALUE, (), "close this descriptor first", parse=to.number),
    Option("help", FLAG, False, "this text", short="h"),
    Option("version", FLAG, False, "say which version this is", short="V"),
    Option("config", VALUE, "", "read options from this file, over the others", rpc="config_file",
           note="besides /etc/criu/default.conf, ~/.criu/default.conf and $CRIU_CONFIG_FILE"),
    Option("no-default-config", FLAG, False, "read neither /etc/criu/default.conf nor ~/.criu/default.conf"),
    Option("deprecated", SWITCH, False, "allow what is out of date", support=HARMLESS, note="nothing is"),
    Option("unprivileged", SWITCH, False, "do what can be done without root, with CAP_CHECKPOINT_RESTORE",
           rpc="unprivileged", note="control groups are left alone; what is not permitted fails where it is needed"),
    Option("libdir", VALUE, "", "where plugins are", support=HARMLESS, short="L", note="there are no plugins"),
    Option("root", VALUE, "", "the root directory of the restored mount namespace, or of the container that is dumped",
           short="r", rpc="root", sets="mounts.root", convert=to.or_root),
    Option("external", VALUE, (), "something outside that is not carried, or what stands for it: mnt[KEY]:VALUE, "
           "veth[IN]:OUT, net[INODE]:KEY, dev[MAJ/MIN]:KEY, file[MNT:INODE], unix[INODE], tty[RDEV:DEV]",
           read="all_external", rpc="external ext_mnt auto_ext_mnt veths", sets="policies.external",
           people=People(value="WHAT",
                         text="something outside of the tree that is not carried, in the words of criu(8)"),
           note="also veth[IN]:OUT@BRIDGE, macvlan[IN]:OURS, ipvlan, vlan and netdev[IN]:OURS (any interface of ours, "
           "which comes back if the restore fails; at the dump: one that cannot be made again); mnt[] at the restore "
           "binds the host's mounts that the dump found, what every mount of a type shows is mounted anew"),
    Option("ext-mount-map", VALUE, (), "KEY:VALUE, as --external mnt[KEY]:VALUE", short="M", field="external",
           parse=to.mount),
    Option("veth-pair", VALUE, (), "IN=OUT, as --external veth[IN]:OUT", field="external", parse=to.veth),
    Option("inherit-fd", VALUE, (), "fd[NUM]:KEY: this open descriptor of ours stands for that external file",
           parse=to.inherited, rpc="inherit_fd", sets="restore.inherit_fds",
           people=People((RESTORE,), keyword="inherit_fds", value="FD",
                         text="a descriptor of the shell that stands for a file outside, as fd[3]:pipe:[1234]")),
    Option("ext-unix-sk", MAYBE, False, "unix sockets may lead to processes outside; with inodes, only those",
           short="x", rpc="ext_unix_sk unix_sk_ino", sets="network.ext_unix",
           people=People(name="external-unix", text="unix sockets may lead to other processes")),
    Option("external-pipes", NO_WORD, True, "pipes may lead to other processes; nobody is at their other end after the "
           "restore", sets="files.external_pipes",
           people=People(default=False, why="container engines hold the other ends and give them back; a person would "
                         "lose what is at the other end without a word")),
    Option("shell-job", SWITCH, False, "the root is a shell's job: its session and terminal are outside", short="j",
           rpc="shell_job", sets="terminals.shell_job",
           people=People(text="the processes belong to this terminal's session, and stay with it")),
    Option("own-session", NO_WORD, False, "a command that was started from a shell leads a session of its own when it "
           "is restored, unless --shell-job keeps it in the caller's", sets="dump.own_session",
           people=People(BEFORE, True, only_python=True, why="CRIU refuses such a process, and its callers expect it "
                         "to; whoever types a command has always started it from a shell")),
    Option("orphan-pts-master", SWITCH, False, "terminals are driven from outside; their masters are handed over at "
           "the restore", rpc="orphan_pts_master", sets="terminals.orphan_pts_master"),
    Option("file-locks", SWITCH, False, "file locks may be held", short="l", rpc="file_locks", sets="files.file_locks",
           people=People(default=True, text="file locks may be held (the default)", why="CRIU's callers rely on its "
                         "refusal; the locks come back, so nobody loses anything by allowing it")),
    Option("link-remap", SWITCH, False, "link deleted files that have other names into their place meanwhile",
           rpc="link_remap", sets="files.link_remap",
           people=People(text="link deleted but hard-linked files into their place")),
    Option("ghost-limit", VALUE, None, "keep deleted files up to so many bytes (10M, 1G); without it of any size",
           parse=to.size, rpc="ghost_limit", sets="files.ghost_limit",
           people=People(BEFORE, 64 << 20, value="MIB",
                         text="deleted files to keep, up to so many MiB each (default: 64)",
                         why="a person can be asked for more; an engine that says nothing would have its container "
                         "refused, and has no option for it"),
           note="CRIU's default is 1M, beyond which it refuses; here without the option nothing is refused"),
    Option("ghost-fiemap", SWITCH, False, "find holes in deleted files by fiemap", support=HARMLESS,
           note="holes are found by SEEK_DATA in any case"),
    Option("evasive-devices", SWITCH, False, "use any path by which a device can be opened", rpc="evasive_devices",
           sets="files.evasive_devices"),
    Option("tcp-established", SWITCH, False, "carry TCP connections", rpc="tcp_established",
           sets="network.tcp_established",
           people=People(text="keep TCP connections",
                         restored="with the TCP connections of the checkpoint (the default)")),
    Option("tcp-close", SWITCH, False, "TCP connections are found closed after the restore", rpc="tcp_close",
           sets="network.tcp_close", people=People(text="TCP connections will be found closed")),
    Option("skip-in-flight", SWITCH, False, "leave out TCP connections that are not accepted yet",
           rpc="tcp_skip_in_flight", sets="network.skip_in_flight"),
    Option("timeout", VALUE, 10, "give up if the tasks are not stopped after so many seconds; 0 waits for ever",
           parse=to.number, rpc="timeout", sets="dump.timeout_s",
           people=People((CHECKPOINT,), keyword="timeout_s", only_python=True)),
    Option("freeze-cgroup", VALUE, "", "stop the tasks by this control group's freezer", rpc="freeze_cgroup",
           sets="cgroups.freezer",
           note="v1 and v2; a group that is frozen because of one above it is refused"),
    Option("exec-processes", VALUE, "refuse", "what entered the pid namespace from outside (podman exec): refuse, "
           "carry, or leave-out", parse=to.one_of("refuse", "carry", "leave-out"), sets="dump.entered",
           people=People(BEFORE, value="HOW", choices=("refuse", "carry", "leave-out"),
                         text="what becomes of processes that entered the pid namespace from outside, as with podman "
                         "exec: nothing is done while there are any (refuse, the default), they are taken along, or "
                         "left out and lost"),
           note="ours; they would end with the namespace's first process, and carried they are its children"),
    Option("snapshot", VALUE, "auto", "with --leave-running: whether the tasks run on while their memory is copied, "
           "from copies-on-write of them: auto (large ones, unless somebody is told at post-dump), always or never",
           parse=to.one_of("auto", "always", "never"),
           sets="dump.snapshot",
           people=People((CHECKPOINT,), value="WHEN", choices=("auto", "always", "never"),
                         text="with --leave-running: whether it runs on while its memory is copied"),
           note="ours; one that cannot fork (a limit on processes or memory) is copied while it is stopped. Whoever is "
           "told at post-dump, by --action-script or RPC, is told then when the tasks run again"),
    Option("force", NO_WORD, False, "put the images into PATH although there are other files in it, which stay",
           sets="dump.force", people=People((CHECKPOINT,))),
    # The commands' word is the one that container engines have as well: --compress zstd.
    Option("compress", NO_WORD, False, "memory is compressed (zstd); the processes are stopped for longer then",
           sets="dump.compress", people=People((CHECKPOINT,), only_python=True)),
    Option("force-irmap", SWITCH, False, "look for the paths of inotify watches", support=HARMLESS, rpc="force_irmap",
           note="watches are found by their paths in any case"),
    Option("irmap-scan-path", VALUE, (), "where to look for them", support=HARMLESS, rpc="irmap_scan_paths"),
    Option("allow-uprobes", SWITCH, False, "dump tasks that have uprobes", support=HARMLESS,
           note="they are not in the way"),
    Option("weak-sysctls", SWITCH, False, "sysctls that cannot be set stay as they are", rpc="weak_sysctls",
           sets="network.weak_sysctls"),
    Option("skip-file-rwx-check", SWITCH, False, "do not compare the modes of files", rpc="skip_file_rwx_check",
           sets="files.skip_file_rwx_check"),
    Option("file-validation", VALUE, "buildid", "how files are told from others of their names: filesize or buildid",
           parse=to.one_of("filesize", "buildid"), sets="files.file_validation",
           people=People((RESTORE,), value="HOW", choices=("buildid", "filesize"),
                         text="what tells whether a file is the one that was mapped: the build id of code (the "
                         "default), or its size alone"),
           note="of executed code without a build id the time of writing and a sum of parts are compared as well"),
    Option("rewind-files", SWITCH, False, "cut files that have grown since the dump to the length that they had",
           convert=to.yes, sets="files.rewind_files",
           people=People((RESTORE,), text="cut files that have grown since to the length that they had, after asking "
                         "where this is a terminal"),
           note="ours"),
    Option("verify", SWITCH, True, "refuse images that are not as they were written, by torpor.manifest (--no-verify "
           "takes them)", sets="restore.verify",
           people=People((RESTORE,), name="no-verify", keyword="verify", default=True,
                         text="take images that are not as they were written"),
           note="ours"),
    Option("new-network", NO_WORD, False, "in a network of its own, with loopback only: all ports are free there",
           sets="restore.new_network", people=People((RESTORE,))),
    Option("lazy", NO_WORD, False, "it runs at once, and its memory comes from the images behind it",
           people=People((RESTORE,), text="it runs at once, and its memory comes from the images behind it, which must "
                         "be a directory: by a process of torpor's that ends when all is there; if that is killed "
                         "before, the restored processes are ended")),
    Option("trust", NO_WORD, True, "allow a checkpoint that is no job's of this machine what strangers may not ask "
           "for: other mounts of the host, file systems of the whole machine, consoles and serial lines, security "
           "labels, precedence over others (real-time scheduling, low OOM scores), set-uid files and devices in a "
           "tmpfs or among deleted files", field="trust", sets="files.special_files",
           people=People((RESTORE,), False, why="whoever calls CRIU has always trusted the images; a person is sent a "
                         "file by somebody")),
    Option("host-mounts", NO_WORD, False, "mounts that the dump has found on the host are shown again where the host "
           "has them, by the same path", sets="mounts.host_mounts",
           people=People((), True, why="CRIU asks for --external mnt[] first; a job's mounts are this machine's")),
    Option("cpu-cap", MAYBE, "", "what of the processor must be there at the restore: all, cpu, fpu, ins, none, a "
           "list; ^ takes one away", parse=to.cpu_caps, convert=to.or_none, rpc="cpu_cap", sets="restore.cpu_cap",
           note="without it the instructions and the register state that programs may have found are asked for"),
    Option("network-lock", VALUE, "", "how packets are held back: iptables, nftables or skip",
           parse=to.one_of("iptables", "nftables", "skip"), rpc="network_lock", sets="network.network_lock",
           note="without it nftables, or else iptables; locked only where there are TCP connections to carry, or a "
           "method is asked for"),
    Option("mntns-compat-mode", SWITCH, False, "restore mounts the old way", support=HARMLESS, rpc="mntns_compat_mode",
           note="there is one way"),
    Option("enable-external-sharing", FLAG, False, "external mounts may be shared", rpc="ext_sharing"),
    Option("enable-external-masters", FLAG, False, "external mounts may be slaves", rpc="ext_masters"),
    Option("track-mem", SWITCH, False, "take note of what is written from now on, for the dump after this one",
           rpc="track_mem", sets="dump.track",
           note="by userfaultfd, which needs no soft-dirty bits (Linux 6.7); a process of torpor's holds it until the "
           "tree ends, or is dumped for the last time; pre-dump does so in any case"),
    Option("auto-dedup", SWITCH, False, "take out of the images before what this dump or pre-dump has itself",
           rpc="auto_dedup", sets="dump.dedup",
           note="when it is complete, and on the disk; images that are restored stay as they are"),
    Option("pre-dump-mode", VALUE, "splice", "how a pre-dump reads memory: splice or read", support=HARMLESS,
           parse=to.one_of("splice", "read"), rpc="pre_dump_mode"),
    Option("status-fd", VALUE, -1, "write a byte to this descriptor when the service, server or restore is ready",
           parse=to.number, rpc="status_fd",
           note="criu service, page-server, lazy-pages and dump --lazy-pages do; scripts are told status-ready"),
    Option("prev-images-dir", VALUE, "", "images that these ones build upon", rpc="parent_img",
           sets="dump.parent",
           note="from --images-dir on; where it is not known what was written since, all memory is copied, and the log "
           "says why"),
    Option("lazy-pages", FLAG, False, "restore: memory comes on demand, by criu lazy-pages; dump: pages stay with the "
           "processes, stopped, until all have been asked for at --port; page-server: give the pages of images",
           rpc="lazy_pages"),
    Option("stream", SWITCH, False, "images go by pipes to whoever listens at streamer-capture.sock in --images-dir, "
           "as criu-image-streamer does, or come from streamer-serve.sock there",
           note="dump, pre-dump and restore; scripts are told pre-stream before; not with --page-server, --lazy-pages "
           "and --prev-images-dir"),
    Option("skip-mnt", VALUE, (), "leave this mount out", rpc="skip_mnt", sets="mounts.skipped_mounts",
           note="with all that is on it"),
    Option("enable-fs", VALUE, (), "mount file systems of these types again, though nothing is known of them; all: of "
           "any", convert=to.joined, rpc="enable_fs", sets="mounts.enabled_filesystems",
           note="also those that show the whole machine (debugfs, tracefs, securityfs, pstore, fusectl); at the dump "
           "and at the restore"),
    Option("manage-cgroups", MAYBE, "", "what to do with control groups: none, props, soft, full, strict, ignore",
           parse=to.cgroup_mode, read="cgroup_mode", rpc="manage_cgroups manage_cgroups_mode", sets="cgroups.mode",
           people=People((), "ignore", why="a process belongs into the groups of whoever restores it; a container into "
                         "those that its engine has made"),
           note="v1 and v2; without it soft for root, ignore for others. Of a hierarchy in whose root a task is, CRIU "
           "dumps everybody's groups; nothing is dumped of them here"),
    Option("cgroup-root", VALUE, (), "[CONTROLLER:]/PATH: put the groups of the tree below this one",
           parse=to.cgroup_root, rpc="cg_root", sets="cgroups.roots"),
    Option("cgroup-props", VALUE, "", "properties of groups to dump, as YAML", rpc="cgroup_props",
           sets="cgroups.props"),
    Option("cgroup-props-file", VALUE, "", "the same from a file", rpc="cgroup_props_file", sets="cgroups.props_file"),
    Option("cgroup-dump-controller", VALUE, (), "properties of this controller are dumped",
           rpc="cgroup_dump_controller", sets="cgroups.controllers"),
    Option("cgroup-yard", VALUE, "", "where control groups are mounted already", rpc="cgroup_yard",
           sets="cgroups.yard"),
    Option("lsm-profile", VALUE, "", "TYPE:NAME: the security label of all restored tasks", rpc="lsm_profile",
           sets="restore.lsm_profile",
           note="policies are not carried: a profile must be loaded on the destination. What had the old label of a "
           "task (sockets), or its categories (files), is changed with it"),
    Option("lsm-map", VALUE, (), "OLD=NEW: what a security label (or a type or level of SELinux's) becomes",
           parse=to.relabel, convert=tuple, sets="restore.lsm_map",
           note="ours: labels of tasks, of what they make, of their sockets, pipes and deleted files"),
    Option("lsm-mount-context", VALUE, "", "the security label of mounts that are made with one",
           rpc="lsm_mount_context", sets="mounts.lsm_mount_context"),
    Option("empty-ns", VALUE, (), "leave a namespace of this kind (net) empty", parse=to.one_of("net"),
           convert=to.has_net, rpc="empty_ns", sets="network.empty_net"),
    Option("join-ns", VALUE, (), "KIND:PID or KIND:PATH: restore into this namespace", short="J", parse=to.join_ns,
           convert=to.joins, rpc="join_ns", sets="restore.join_ns"),
    Option("page-server", SWITCH, False, "the pages go to the page server at --address and --port, not into the images",
           rpc="ps", note="what was sent is kept there only when all of it has come"),
    Option("address", VALUE, "", "where the page server is, or where it or the service listens"),
    Option("socket-mode", VALUE, 0o600, "the mode of the service's socket (default: 600)", parse=to.mode,
           note="ours: who may connect to criu service, which is its owner otherwise; others are served with their own "
           "rights"),
    Option("socket-group", VALUE, "", "the group that the service's socket belongs to", note="ours"),
    Option("port", VALUE, 0, "the page server's port; a server without it takes one that is free", parse=to.port),
    Option("ps-socket", VALUE, -1, "a connected socket instead of address and port", parse=to.number),
    Option("tls", SWITCH, False, "talk TLS to the page server, each end with a certificate", rpc="tls"),
    Option("tls-no-cn-verify", FLAG, False, "do not compare the name in the server's certificate",
           rpc="tls_no_cn_verify"),
    Option("tls-cacert", VALUE, "", "the authority's certificate", rpc="tls_cacert",
           note="otherwise /etc/pki/CA/cacert.pem, or the machine's authorities"),
    Option("tls-cacrl", VALUE, "", "its list of revoked ones", rpc="tls_cacrl",
           note="otherwise /etc/pki/CA/private/cacrl.pem, if that is there"),
    Option("tls-cert", VALUE, "", "our certificate", rpc="tls_cert", note="otherwise /etc/pki/criu/cert.pem"),
    Option("tls-key", VALUE, "", "its key", rpc="tls_key", note="otherwise /etc/pki/criu/private/key.pem"),
    Option("extra", SWITCH, False, "check features that only some programs need"),
    Option("experimental", SWITCH, False, "check features that CRIU calls experimental"),
    Option("all", FLAG, False, "check all of them"),
    Option("feature", VALUE, "", "check this one"),
)  # fmt: skip


def iter_words() -> Iterator[Option]:
    """The options of criu(8), those of ours among them."""
    return (option for option in OPTIONS if option.takes)


def of_command_line(options: object) -> dict[str, dict[str, Any]]:
    """What a parsed command line of criu(8) sets: policy, its field, the value."""
    found: dict[str, dict[str, Any]] = {}
    for option in OPTIONS:
        if option.sets:
            value = option.as_set(getattr(options, option.read)) if option.takes else option.default
            _set(found, option, value)
    return found


def of_arguments(**arguments: object) -> dict[str, dict[str, Any]]:
    """What arguments of Python's functions set: policy, its field, the value."""
    found: dict[str, dict[str, Any]] = {}
    for option in OPTIONS:
        if option.sets:
            _set(found, option, arguments.pop(option.keyword, option.peoples_default))
    if arguments:
        raise TypeError(f"unexpected arguments: {', '.join(sorted(arguments))}")
    return found


def _set(found: dict[str, dict[str, Any]], option: Option, value: object) -> None:
    for place in option.sets.split():
        policy, _, field = place.partition(".")
        found.setdefault(policy, {})[field] = value
