"""The kinds of images: magic, file name and entry of each.

A kind is named by its constant (``kinds.CORE``, which carries the type of its entries) or by its name ("CORE").  Raw
kinds have neither magic nor entries; their files are opened as they are.
"""

from __future__ import annotations

from torpor.base.records import dataclass
from torpor.base.typed import TYPE_CHECKING, Generic, TypeVar
from torpor.images.errors import ImageError

if TYPE_CHECKING:
    from torpor.images import messages as m

    EntryT_co = TypeVar("EntryT_co", bound=m.Message, covariant=True)
else:
    EntryT_co = TypeVar("EntryT_co", covariant=True)

_DIGITS = {"u": "0123456789", "lu": "0123456789", "x": "0123456789abcdef", "s": "abcdefghijklmnopqrstuvwxyz"}


@dataclass(frozen=True, slots=True)
class ImageKind(Generic[EntryT_co]):
    """One kind of image file.

    ``magic`` is None for raw files.  ``file_pattern`` holds at most one of %u, %lu, %x, %s.  ``entry`` is the name of
    the (first) entry's message; ``payload`` names what follows an entry (see format.py), None where nothing does.
    ``service`` kinds begin with the other common magic.
    """

    name: str
    magic: int | None
    file_pattern: str
    entry: str | None
    payload: str | None = None
    service: bool = False

    def file_name(self, ident: int | str | None = None) -> str:
        """The file's name; ImageError where *ident* is missing, too many, or of the wrong type."""
        try:
            return self.file_pattern % (() if ident is None else (ident,))
        except TypeError:
            raise ImageError(f"{ident!r} does not complete the file name {self.file_pattern}") from None

    def parse_file_name(self, file_name: str) -> int | str | None:
        """The id in *file_name* ("" where the kind has none), None where this is no file of the kind."""
        head, percent, tail = self.file_pattern.partition("%")
        if not percent:
            return "" if file_name == head else None
        conversion = "lu" if tail.startswith("lu") else tail[0]
        tail = tail[len(conversion) :]
        if not file_name.startswith(head) or not file_name.endswith(tail):
            return None
        middle = file_name[len(head) : len(file_name) - len(tail)]
        if not middle or middle.strip(_DIGITS[conversion]) or len(middle) > 20:
            return None
        return middle if conversion == "s" else int(middle, 16 if conversion == "x" else 10)


def _raw(name: str, file_pattern: str) -> ImageKind[m.Message]:
    return ImageKind(name, None, file_pattern, None)


COMMON_MAGIC = 0x54564319
SERVICE_MAGIC = 0x55105940

INVENTORY: ImageKind[m.inventory_entry] = ImageKind("INVENTORY", 0x58313116, "inventory.img", "inventory_entry")
PSTREE: ImageKind[m.pstree_entry] = ImageKind("PSTREE", 0x50273030, "pstree.img", "pstree_entry")
FDINFO: ImageKind[m.fdinfo_entry] = ImageKind("FDINFO", 0x56213732, "fdinfo-%u.img", "fdinfo_entry")
PAGEMAP: ImageKind[m.pagemap_head] = ImageKind(
    "PAGEMAP", 0x56084025, "pagemap-%lu.img", "pagemap_head", payload="pagemap"
)
SHMEM_PAGEMAP: ImageKind[m.pagemap_head] = ImageKind(
    "SHMEM_PAGEMAP", 0x56084025, "pagemap-shmem-%lu.img", "pagemap_head", payload="pagemap"
)
CORE: ImageKind[m.core_entry] = ImageKind("CORE", 0x55053847, "core-%u.img", "core_entry")
IDS: ImageKind[m.task_kobj_ids_entry] = ImageKind("IDS", 0x54432030, "ids-%u.img", "task_kobj_ids_entry")
VMAS: ImageKind[m.vma_entry] = ImageKind("VMAS", 0x54123737, "vmas-%u.img", "vma_entry")
PIPES: ImageKind[m.pipe_entry] = ImageKind("PIPES", 0x56513555, "pipes.img", "pipe_entry")
PIPES_DATA: ImageKind[m.pipe_data_entry] = ImageKind(
    "PIPES_DATA", 0x56453709, "pipes-data.img", "pipe_data_entry", payload="pipes_data"
)
FIFO: ImageKind[m.fifo_entry] = ImageKind("FIFO", 0x58364939, "fifo.img", "fifo_entry")
FIFO_DATA: ImageKind[m.pipe_data_entry] = ImageKind(
    "FIFO_DATA", 0x59333054, "fifo-data.img", "pipe_data_entry", payload="pipes_data"
)
SIGACT: ImageKind[m.sa_entry] = ImageKind("SIGACT", 0x55344201, "sigacts-%u.img", "sa_entry")
UNIXSK: ImageKind[m.unix_sk_entry] = ImageKind("UNIXSK", 0x54373943, "unixsk.img", "unix_sk_entry")
INETSK: ImageKind[m.inet_sk_entry] = ImageKind("INETSK", 0x56443851, "inetsk.img", "inet_sk_entry")
PACKETSK: ImageKind[m.packet_sock_entry] = ImageKind("PACKETSK", 0x60454618, "packetsk.img", "packet_sock_entry")
ITIMERS: ImageKind[m.itimer_entry] = ImageKind("ITIMERS", 0x57464056, "itimers-%u.img", "itimer_entry")
POSIX_TIMERS: ImageKind[m.posix_timer_entry] = ImageKind(
    "POSIX_TIMERS", 0x52603957, "posix-timers-%u.img", "posix_timer_entry"
)
SK_QUEUES: ImageKind[m.sk_packet_entry] = ImageKind(
    "SK_QUEUES", 0x56264026, "sk-queues.img", "sk_packet_entry", payload="sk_queues"
)
UTSNS: ImageKind[m.utsns_entry] = ImageKind("UTSNS", 0x54473203, "utsns-%u.img", "utsns_entry")
CREDS: ImageKind[m.creds_entry] = ImageKind("CREDS", 0x54023547, "creds-%u.img", "creds_entry")
IPC_VAR: ImageKind[m.ipc_var_entry] = ImageKind("IPC_VAR", 0x53115007, "ipcns-var-%u.img", "ipc_var_entry")
IPCNS_SHM: ImageKind[m.ipc_shm_entry] = ImageKind(
    "IPCNS_SHM", 0x46283044, "ipcns-shm-%u.img", "ipc_shm_entry", payload="ipc_shm"
)
IPCNS_MSG: ImageKind[m.ipc_msg_entry] = ImageKind(
    "IPCNS_MSG", 0x55453737, "ipcns-msg-%u.img", "ipc_msg_entry", payload="ipc_msg_queue"
)
IPCNS_SEM: ImageKind[m.ipc_sem_entry] = ImageKind(
    "IPCNS_SEM", 0x59573019, "ipcns-sem-%u.img", "ipc_sem_entry", payload="ipc_sem"
)
REG_FILES: ImageKind[m.reg_file_entry] = ImageKind("REG_FILES", 0x50363636, "reg-files.img", "reg_file_entry")
EXT_FILES: ImageKind[m.ext_file_entry] = ImageKind("EXT_FILES", 0x59255641, "ext-files.img", "ext_file_entry")
FS: ImageKind[m.fs_entry] = ImageKind("FS", 0x51403912, "fs-%u.img", "fs_entry")
MM: ImageKind[m.mm_entry] = ImageKind("MM", 0x57492820, "mm-%u.img", "mm_entry")
REMAP_FPATH: ImageKind[m.remap_file_path_entry] = ImageKind(
    "REMAP_FPATH", 0x59133954, "remap-fpath.img", "remap_file_path_entry"
)
GHOST_FILE: ImageKind[m.ghost_file_entry] = ImageKind(
    "GHOST_FILE", 0x52583605, "ghost-file-%x.img", "ghost_file_entry", payload="ghost_file"
)
TCP_STREAM: ImageKind[m.tcp_stream_entry] = ImageKind(
    "TCP_STREAM", 0x51465506, "tcp-stream-%x.img", "tcp_stream_entry", payload="tcp_stream"
)
EVENTFD_FILE: ImageKind[m.eventfd_file_entry] = ImageKind(
    "EVENTFD_FILE", 0x44523722, "eventfd.img", "eventfd_file_entry"
)
EVENTPOLL_FILE: ImageKind[m.eventpoll_file_entry] = ImageKind(
    "EVENTPOLL_FILE", 0x45023858, "eventpoll.img", "eventpoll_file_entry"
)
EVENTPOLL_TFD: ImageKind[m.eventpoll_tfd_entry] = ImageKind(
    "EVENTPOLL_TFD", 0x44433746, "eventpoll-tfd.img", "eventpoll_tfd_entry"
)
SIGNALFD: ImageKind[m.signalfd_entry] = ImageKind("SIGNALFD", 0x57323820, "signalfd.img", "signalfd_entry")
INOTIFY_FILE: ImageKind[m.inotify_file_entry] = ImageKind(
    "INOTIFY_FILE", 0x48424431, "inotify.img", "inotify_file_entry"
)
INOTIFY_WD: ImageKind[m.inotify_wd_entry] = ImageKind("INOTIFY_WD", 0x54562009, "inotify-wd.img", "inotify_wd_entry")
MNTS: ImageKind[m.mnt_entry] = ImageKind("MNTS", 0x55563928, "mountpoints-%u.img", "mnt_entry")
NETDEV: ImageKind[m.net_device_entry] = ImageKind("NETDEV", 0x57373951, "netdev-%u.img", "net_device_entry")
NETNS: ImageKind[m.netns_entry] = ImageKind("NETNS", 0x55933752, "netns-%u.img", "netns_entry")
TTY_FILES: ImageKind[m.tty_file_entry] = ImageKind("TTY_FILES", 0x59433025, "tty.img", "tty_file_entry")
TTY_INFO: ImageKind[m.tty_info_entry] = ImageKind("TTY_INFO", 0x59453036, "tty-info.img", "tty_info_entry")
TTY_DATA: ImageKind[m.tty_data_entry] = ImageKind("TTY_DATA", 0x59413026, "tty-data.img", "tty_data_entry")
FILE_LOCKS: ImageKind[m.file_lock_entry] = ImageKind("FILE_LOCKS", 0x54323616, "filelocks.img", "file_lock_entry")
RLIMIT: ImageKind[m.rlimit_entry] = ImageKind("RLIMIT", 0x57113925, "rlimit-%u.img", "rlimit_entry")
FANOTIFY_FILE: ImageKind[m.fanotify_file_entry] = ImageKind(
    "FANOTIFY_FILE", 0x55096122, "fanotify.img", "fanotify_file_entry"
)
FANOTIFY_MARK: ImageKind[m.fanotify_mark_entry] = ImageKind(
    "FANOTIFY_MARK", 0x56506035, "fanotify-mark.img", "fanotify_mark_entry"
)
SIGNAL: ImageKind[m.signal_queue_entry] = ImageKind("SIGNAL", 0x59255647, "signal-s-%u.img", "signal_queue_entry")
PSIGNAL: ImageKind[m.signal_queue_entry] = ImageKind("PSIGNAL", 0x59255647, "psignal-%u.img", "signal_queue_entry")
NETLINK_SK: ImageKind[m.netlink_sk_entry] = ImageKind("NETLINK_SK", 0x58005614, "netlinksk.img", "netlink_sk_entry")
NS_FILES: ImageKind[m.ns_file_entry] = ImageKind("NS_FILES", 0x61394011, "ns-files.img", "ns_file_entry")
TUNFILE: ImageKind[m.tunfile_entry] = ImageKind("TUNFILE", 0x57143751, "tunfile.img", "tunfile_entry")
CGROUP: ImageKind[m.cgroup_entry] = ImageKind("CGROUP", 0x59383330, "cgroup.img", "cgroup_entry")
TIMERFD: ImageKind[m.timerfd_entry] = ImageKind("TIMERFD", 0x50493712, "timerfd.img", "timerfd_entry")
CPUINFO: ImageKind[m.cpuinfo_entry] = ImageKind("CPUINFO", 0x61404013, "cpuinfo.img", "cpuinfo_entry")
USERNS: ImageKind[m.userns_entry] = ImageKind("USERNS", 0x55474906, "userns-%u.img", "userns_entry")
SECCOMP: ImageKind[m.seccomp_entry] = ImageKind("SECCOMP", 0x64413049, "seccomp.img", "seccomp_entry")
BINFMT_MISC: ImageKind[m.binfmt_misc_entry] = ImageKind(
    "BINFMT_MISC", 0x67343323, "binfmt-misc.img", "binfmt_misc_entry"
)
AUTOFS: ImageKind[m.autofs_entry] = ImageKind("AUTOFS", 0x49353943, "autofs-%u.img", "autofs_entry")
FILES: ImageKind[m.file_entry] = ImageKind("FILES", 0x56303138, "files.img", "file_entry")
MEMFD_INODE: ImageKind[m.memfd_inode_entry] = ImageKind("MEMFD_INODE", 0x48453499, "memfd.img", "memfd_inode_entry")
TIMENS: ImageKind[m.timens_entry] = ImageKind("TIMENS", 0x43114433, "timens-%u.img", "timens_entry")
PIDNS: ImageKind[m.pidns_entry] = ImageKind("PIDNS", 0x61157326, "pidns-%u.img", "pidns_entry")
BPFMAP_FILE: ImageKind[m.bpfmap_file_entry] = ImageKind(
    "BPFMAP_FILE", 0x57506142, "bpfmap-file.img", "bpfmap_file_entry"
)
BPFMAP_DATA: ImageKind[m.bpfmap_data_entry] = ImageKind(
    "BPFMAP_DATA", 0x64324033, "bpfmap-data.img", "bpfmap_data_entry", payload="bpfmap_data"
)
APPARMOR: ImageKind[m.apparmor_entry] = ImageKind("APPARMOR", 0x59423047, "apparmor.img", "apparmor_entry")
PIDFD: ImageKind[m.pidfd_entry] = ImageKind("PIDFD", 0x54435556, "pidfd.img", "pidfd_entry")
STATS: ImageKind[m.stats_entry] = ImageKind("STATS", 0x57093306, "stats-%s", "stats_entry", service=True)
IRMAP_CACHE: ImageKind[m.irmap_cache_entry] = ImageKind(
    "IRMAP_CACHE", 0x57004059, "irmap-cache.img", "irmap_cache_entry", service=True
)
PAGES = _raw("PAGES", "pages-%u.img")
IFADDR = _raw("IFADDR", "ifaddr-%u.img")
ROUTE = _raw("ROUTE", "route-%u.img")
ROUTE6 = _raw("ROUTE6", "route6-%u.img")
RULE = _raw("RULE", "rule-%u.img")
IPTABLES = _raw("IPTABLES", "iptables-%u.img")
IP6TABLES = _raw("IP6TABLES", "ip6tables-%u.img")
NFTABLES = _raw("NFTABLES", "nftables-%u.img")
NETNS_CT = _raw("NETNS_CT", "netns-ct-%u.img")
NETNS_EXP = _raw("NETNS_EXP", "netns-exp-%u.img")
#: Ours: what the network images of CRIU's do not say (netlink messages; sysctls as lines).
TORPOR_ETHTOOL = _raw("TORPOR_ETHTOOL", "torpor-ethtool-%u.img")
TORPOR_LABEL = _raw("TORPOR_LABEL", "torpor-label-%u.img")
TORPOR_LINK = _raw("TORPOR_LINK", "torpor-link-%u.img")
TORPOR_MPTCP = _raw("TORPOR_MPTCP", "torpor-mptcp-%u.img")
TORPOR_NEIGH = _raw("TORPOR_NEIGH", "torpor-neigh-%u.img")
TORPOR_QDISC = _raw("TORPOR_QDISC", "torpor-qdisc-%u.img")
TORPOR_NFT = _raw("TORPOR_NFT", "torpor-nft-%u.img")
TORPOR_SYSCTL = _raw("TORPOR_SYSCTL", "torpor-sysctl-%u.img")
TMPFS_IMG = _raw("TMPFS_IMG", "tmpfs-%u.tar.gz.img")
TMPFS_DEV = _raw("TMPFS_DEV", "tmpfs-dev-%u.tar.gz.img")

ALL: tuple[ImageKind[m.Message], ...] = (
    INVENTORY,
    PSTREE,
    FDINFO,
    PAGEMAP,
    SHMEM_PAGEMAP,
    CORE,
    IDS,
    VMAS,
    PIPES,
    PIPES_DATA,
    FIFO,
    FIFO_DATA,
    SIGACT,
    UNIXSK,
    INETSK,
    PACKETSK,
    ITIMERS,
    POSIX_TIMERS,
    SK_QUEUES,
    UTSNS,
    CREDS,
    IPC_VAR,
    IPCNS_SHM,
    IPCNS_MSG,
    IPCNS_SEM,
    REG_FILES,
    EXT_FILES,
    FS,
    MM,
    REMAP_FPATH,
    GHOST_FILE,
    TCP_STREAM,
    EVENTFD_FILE,
    EVENTPOLL_FILE,
    EVENTPOLL_TFD,
    SIGNALFD,
    INOTIFY_FILE,
    INOTIFY_WD,
    MNTS,
    NETDEV,
    NETNS,
    TTY_FILES,
    TTY_INFO,
    TTY_DATA,
    FILE_LOCKS,
    RLIMIT,
    FANOTIFY_FILE,
    FANOTIFY_MARK,
    SIGNAL,
    PSIGNAL,
    NETLINK_SK,
    NS_FILES,
    TUNFILE,
    CGROUP,
    TIMERFD,
    CPUINFO,
    USERNS,
    SECCOMP,
    BINFMT_MISC,
    AUTOFS,
    FILES,
    MEMFD_INODE,
    TIMENS,
    PIDNS,
    BPFMAP_FILE,
    BPFMAP_DATA,
    APPARMOR,
    PIDFD,
    STATS,
    IRMAP_CACHE,
    PAGES,
    IFADDR,
    ROUTE,
    ROUTE6,
    RULE,
    IPTABLES,
    IP6TABLES,
    NFTABLES,
    NETNS_CT,
    NETNS_EXP,
    TORPOR_ETHTOOL,
    TORPOR_LABEL,
    TORPOR_LINK,
    TORPOR_MPTCP,
    TORPOR_NEIGH,
    TORPOR_NFT,
    TORPOR_QDISC,
    TORPOR_SYSCTL,
    TMPFS_IMG,
    TMPFS_DEV,
)

# First wins: two kinds may share a magic and differ in the file name only.
_BY_NAME = {kind.name: kind for kind in ALL}
_BY_MAGIC = {kind.magic: kind for kind in reversed(ALL) if kind.magic is not None}


def by_name(name: str) -> ImageKind[m.Message]:
    """The kind called *name*; ImageError where there is none."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise ImageError(f"there is no kind of image called {name}") from None


def by_magic(magic: int) -> ImageKind[m.Message] | None:
    """The (first) kind with that magic."""
    return _BY_MAGIC.get(magic)


def by_file_name(file_name: str) -> tuple[ImageKind[m.Message], int | str | None] | None:
    """The kind a file's name tells, and the id in it (None where the kind has none); None for other files."""
    for kind in ALL:
        ident = kind.parse_file_name(file_name)
        if ident is not None:
            return kind, (None if ident == "" else ident)
    return None


def holds_pages(file_name: str) -> bool:
    """Whether a file's name is that of a page map or of a pages image: of what a page server takes."""
    return any(kind.parse_file_name(file_name) is not None for kind in (PAGEMAP, SHMEM_PAGEMAP, PAGES))
