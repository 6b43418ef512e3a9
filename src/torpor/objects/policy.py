"""What the user allows or wants for the objects of a dump or a restore, by what it is about.

What an option is called, and what it is where nobody says anything, is in :mod:`torpor.engine.option_table`.
"""

from __future__ import annotations

from collections.abc import Callable

from torpor.base.records import dataclass, field


@dataclass(frozen=True, slots=True)
class FilePolicy:
    """For files and pipes."""

    #: Bytes on disk; None: any.
    ghost_limit: int | None = None
    link_remap: bool = False
    file_locks: bool = False
    #: A pipe whose other end is outside of the tree is carried, and comes back with nobody there.
    external_pipes: bool = False
    evasive_devices: bool = False
    skip_file_rwx_check: bool = False
    #: Whether code is known by its build id (``buildid``), or by the file's size alone (``filesize``).
    file_validation: str = "buildid"
    #: Whether a file that has grown may be cut: told its name, its size, and the size that it had.
    rewind_files: Callable[[str, int, int], bool] | None = None
    #: Deleted files and what lies in a tmpfs come back as images say, set-uid files and devices too.
    special_files: bool = True


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """For sockets, and for what network namespaces have."""

    ext_unix: bool = False
    tcp_close: bool = False
    tcp_established: bool = False
    skip_in_flight: bool = False
    #: ``nftables``, ``iptables``, ``skip``; empty: the first of these that works.
    network_lock: str = ""
    #: It moves to another host: a network namespace of its own is locked as a whole, and stays so when it has ended.
    holds_all: bool = False
    #: A network namespace is not looked into (dump), or left as it comes (restore).
    empty_net: bool = False
    #: Sysctls that cannot be set stay as they are.
    weak_sysctls: bool = False


@dataclass(frozen=True, slots=True)
class MountPolicy:
    """For mounts, and for file systems that are mounted in the tree."""

    root: str = "/"
    #: The security label of file systems that are mounted with one.
    lsm_mount_context: str = ""
    #: Mount points to be left out, and types of file systems to be mounted again though nothing is known of them.
    skipped_mounts: tuple[str, ...] = ()
    enabled_filesystems: tuple[str, ...] = ()
    #: Mounts that the dump has found on the host are shown again where the host has them, and by the same path.
    host_mounts: bool = False


@dataclass(frozen=True, slots=True)
class TerminalPolicy:
    """For terminals and their sessions."""

    shell_job: bool = False
    #: A slave whose master is outside of the tree gets a new one, which is handed to whoever asked for the restore.
    orphan_pts_master: bool = False


@dataclass(frozen=True, slots=True)
class Policies:
    """All of it; ``external`` are things of any kind, ``--external`` as given."""

    external: tuple[str, ...] = ()
    files: FilePolicy = field(default_factory=FilePolicy)
    network: NetworkPolicy = field(default_factory=NetworkPolicy)
    mounts: MountPolicy = field(default_factory=MountPolicy)
    terminals: TerminalPolicy = field(default_factory=TerminalPolicy)
