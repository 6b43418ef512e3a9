"""What this kernel can do, found out by trying: a probe a feature, under the names that ``criu check --feature`` has.

A probe leaves nothing behind and says True, or False, or raises OSError for a "no" with its errno.  A feature is about
the kernel (and our privileges) only; whether torpor makes use of it is another matter.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.kernel import errand, mount, netlink, ptrace, rtnetlink, userfaultfd
from torpor.kernel.arch import nr, vdso
from torpor.kernel.kcmp import kcmp
from torpor.kernel.namespaces import CLONE_NEWNS
from torpor.kernel.pidfd import getfd, open_pidfd
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.if_tun import TUNSETIFINDEX
from torpor.kernel.uapi.inet import IPV6_FREEBIND
from torpor.kernel.uapi.kcmp import KCMP_EPOLL_TFD
from torpor.kernel.uapi.memfd import MFD_HUGETLB
from torpor.kernel.uapi.mount import MOVE_MOUNT_SET_GROUP
from torpor.kernel.uapi.netlink import (
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NETLINK_SOCK_DIAG,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_ERROR,
)
from torpor.kernel.uapi.prctl import PR_SET_MM, PR_SET_MM_MAP_SIZE, PR_SET_NO_NEW_PRIVS
from torpor.kernel.uapi.rtnetlink import RTM_GETNSID
from torpor.kernel.uapi.seccomp import SECCOMP_RET_ALLOW, SECCOMP_SET_MODE_FILTER
from torpor.kernel.uapi.sock_diag import SOCK_DIAG_BY_FAMILY
from torpor.kernel.uapi.socket import SO_BUF_LOCK
from torpor.kernel.uapi.sockios import SIOCGSKNS
from torpor.kernel.uapi.timerfd import TFD_IOC_SET_TICKS
from torpor.kernel.uapi.un import SIOCUNIXFILE
from torpor.kernel.uapi.userfaultfd import (
    UFFD_FEATURE_EVENT_FORK,
    UFFD_FEATURE_EVENT_REMAP,
    UFFD_FEATURE_EVENT_REMOVE,
)
from torpor.kernel.vm import PAGE_SIZE

_AF_NETLINK = 16
_NLMSG = struct.Struct("=IHHII")
_NFT_MSG_GETGEN = 0x0A10
_TCP_REPAIR = 19
_BPF_RET_K = 0x06
_PR_TIMER_CREATE_RESTORE_IDS = 77
_UFFD_NONCOOP = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE
_PAGEMAP_SCAN = 0xC0606610
_PAGE_IS_PRESENT, _PAGE_IS_GUARD = 1 << 3, 1 << 8
_NO_LOGIN = b"4294967295"
_ANY_TUN_IFINDEX = 13


def probe(name: str) -> bool:
    """Whether the kernel has feature *name*; KeyError for a name that is none."""
    check = FEATURES[name]
    try:
        return check()
    except OSError:
        return False


# -- /proc -------------------------------------------------------------------------------------------------------


def _exists(path: str) -> Callable[[], bool]:
    return lambda: os.path.exists(path)


def _fdinfo_has(fd: int, key: str) -> bool:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii", errors="replace") as stream:
        return any(line.startswith(key) for line in stream)


def _mnt_id() -> bool:
    with OwnedFd(os.open("/", os.O_PATH | os.O_CLOEXEC)) as fd:
        return _fdinfo_has(fd.fileno(), "mnt_id:")


def _fdinfo_lock() -> bool:
    with OwnedFd(os.memfd_create("torpor-probe")) as fd:
        fcntl.flock(fd.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _fdinfo_has(fd.fileno(), "lock:")


def _timerfd() -> bool:
    with OwnedFd(syscall("timerfd_create", nr.timerfd_create, 1, os.O_CLOEXEC)) as fd:
        # No ticks is refused as a value, by a kernel that knows the request.
        try:
            fcntl.ioctl(fd.fileno(), TFD_IOC_SET_TICKS, struct.pack("=Q", 0))
        except OSError as error:
            if error.errno != errno.EINVAL:
                return False
        return _fdinfo_has(fd.fileno(), "clockid:")


def _ns_pid() -> bool:
    """Whether ``/proc/PID/status`` has a task's pid in each of its namespaces (4.1 and later)."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as stream:
        return any(line.startswith("NSpid:") for line in stream)


def _loginuid() -> bool:
    """Whether a login uid can be taken off and set again (since 3.13, and unless it was made immutable)."""
    with OwnedFd(os.open("/proc/self/loginuid", os.O_RDWR | os.O_CLOEXEC)) as fd:
        before = os.pread(fd.fileno(), 32, 0)
        os.pwrite(fd.fileno(), _NO_LOGIN, 0)
        os.pwrite(fd.fileno(), before, 0)
        return True


def _mem_dirty_track() -> bool:
    """By userfaultfd; CRIU means soft-dirty bits (``CONFIG_MEM_SOFT_DIRTY``), which need not be there."""
    return userfaultfd.can_track()


# -- tasks -------------------------------------------------------------------------------------------------------


def _in_child(check: Callable[[], bool]) -> Callable[[], bool]:
    """*check* done by a child of ours, for it changes whoever makes it."""

    def ask() -> bool:
        reader, writer = os.pipe2(os.O_CLOEXEC)

        def work() -> None:
            if check():
                os.write(writer, b"1")

        with OwnedFd(reader), OwnedFd(writer) as there, errand.sent(work):
            there.close()
            return os.read(reader, 1) == b"1"

    return ask


@contextmanager
def _traced_child(options: int = 0, begin: Callable[[], None] = lambda: None) -> Iterator[Pid]:
    """A stopped child of ours that has begun by *begin*, killed at the end."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    told, ready = os.pipe2(os.O_CLOEXEC)

    def wait() -> None:
        os.close(writer)
        begin()
        os.close(ready)
        os.read(reader, 1)

    with OwnedFd(reader), OwnedFd(writer), OwnedFd(told), OwnedFd(ready) as its, errand.sent(wait) as pid:
        its.close()
        os.read(told, 1)
        ptrace.seize(pid, options | ptrace.PTRACE_O_EXITKILL)
        ptrace.interrupt(pid)
        os.waitpid(pid, 0)
        yield pid


def _seccomp_suspend() -> bool:
    with _traced_child(ptrace.PTRACE_O_SUSPEND_SECCOMP):
        return True


def _filter_itself() -> None:
    syscall("prctl", nr.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    all_goes = bytearray(struct.pack("=HBBI", _BPF_RET_K, 0, 0, SECCOMP_RET_ALLOW))
    program = bytearray(struct.pack("@HP", 1, address_of(all_goes)))
    syscall("seccomp", nr.seccomp, SECCOMP_SET_MODE_FILTER, 0, address_of(program))


def _seccomp_filters() -> bool:
    """Of a task that has one: without any the answer is EINVAL, which it is too where they cannot be read."""
    with _traced_child(begin=_filter_itself) as pid:
        return syscall("ptrace", nr.ptrace, ptrace.PTRACE_SECCOMP_GET_FILTER, pid, 0, 0) > 0


def _get_rseq_conf() -> bool:
    buffer = ctypes.create_string_buffer(32)
    with _traced_child() as pid:
        request = ptrace.PTRACE_GET_RSEQ_CONFIGURATION
        return syscall("ptrace", nr.ptrace, request, pid, 24, ctypes.addressof(buffer)) == 24


def _breakpoints() -> bool:
    at_debug_register_0 = 848  # offsetof(struct user, u_debugreg)
    with _traced_child() as pid:
        peek_user, word = 3, ctypes.c_long()
        syscall("ptrace", nr.ptrace, peek_user, pid, at_debug_register_0, ctypes.addressof(word))
        return True


def _clone3_set_tid() -> bool:
    tid = (ctypes.c_int * 1)(os.getpid())
    arguments = struct.pack("=11Q", 0, 0, 0, 0, 17, 0, 0, 0, ctypes.addressof(tid), 1, 0)
    return _fails_with(errno.EEXIST, "clone3", nr.clone3, _address(arguments), len(arguments))


def _pidfd_store() -> bool:
    with OwnedFd(open_pidfd(Pid(os.getpid()))) as pidfd, OwnedFd(os.memfd_create("torpor-probe")) as fd:
        with OwnedFd(getfd(pidfd.fileno(), fd.fileno())):
            return True


def _kcmp_epoll() -> bool:
    import select

    with OwnedFd(os.memfd_create("unused")), select.epoll() as poll:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            poll.register(reader)
            slot = (ctypes.c_uint32 * 3)(poll.fileno(), reader, 0)
            me = os.getpid()
            return kcmp(me, me, KCMP_EPOLL_TFD, reader, ctypes.addressof(slot)) == 0
        finally:
            os.close(reader)
            os.close(writer)


def _timer_cr_ids() -> bool:
    return syscall("prctl", nr.prctl, _PR_TIMER_CREATE_RESTORE_IDS, 2, 0, 0, 0) in (0, 1)


def _userns() -> bool:
    """Also whether addresses of a task's memory can be set in one, which takes all of them in one call (3.18)."""
    size = ctypes.c_uint()
    syscall("prctl", nr.prctl, PR_SET_MM, PR_SET_MM_MAP_SIZE, ctypes.addressof(size), 0, 0)
    return os.path.exists("/proc/self/ns/user")


# -- memory ------------------------------------------------------------------------------------------------------


def _aio_remap() -> bool:
    context = ctypes.c_ulong(0)
    syscall("io_setup", nr.io_setup, 1, ctypes.addressof(context))
    syscall("io_destroy", nr.io_destroy, context.value)
    return True


def _uffd() -> bool:
    return userfaultfd.features() >= 0


def _uffd_noncoop() -> bool:
    return userfaultfd.features() & _UFFD_NONCOOP == _UFFD_NONCOOP


def _pagemap_scan(categories: int) -> Callable[[], bool]:
    def check() -> bool:
        page = ctypes.create_string_buffer(2 * PAGE_SIZE)
        start = (ctypes.addressof(page) + PAGE_SIZE - 1) & -PAGE_SIZE
        region = ctypes.create_string_buffer(24)
        request = (96, 0, start, start + PAGE_SIZE, 0, ctypes.addressof(region), 1, 0, 0, 0, categories, categories)
        with open("/proc/self/pagemap", "rb", buffering=0) as raw:
            return int(fcntl.ioctl(raw.fileno(), _PAGEMAP_SCAN, bytearray(struct.pack("=12Q", *request)))) >= 0

    return check


def _memfd_hugetlb() -> bool:
    with OwnedFd(os.memfd_create("torpor-probe", MFD_HUGETLB)):
        return True


# -- files and mounts --------------------------------------------------------------------------------------------


def _openat2() -> bool:
    how, path = struct.pack("=3Q", os.O_PATH | os.O_CLOEXEC, 0, 0), b"/\0"
    with OwnedFd(syscall("openat2", nr.openat2, -100 & (1 << 64) - 1, _address(path), _address(how), len(how))):
        return True


def _move_mount_set_group() -> bool:
    empty, nowhere = b"\0", (1 << 64) - 1
    at = _address(empty)
    try:
        syscall("move_mount", nr.move_mount, nowhere, at, nowhere, at, MOVE_MOUNT_SET_GROUP)
    except OSError as error:
        # Who may not mount gets EPERM, an unknown flag is EINVAL; a known one gets as far as the path.
        return error.errno == errno.ENOENT
    return True


def _overlayfs_maps() -> bool:
    """Whether ``maps`` tells of a file of an overlay what stat(2) does (6.8 and later), and not what is below it."""
    import mmap

    maps = open("/proc/self/maps", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    syscall("unshare", nr.unshare, CLONE_NEWNS)
    mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
    top = "/proc"  # the one directory that there is for certain, and nobody else sees what comes over it
    mount.mount("torpor-probe", top, "tmpfs", 0)
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(f"{top}/{name}")
    layers = f"lowerdir={top}/lower,upperdir={top}/upper,workdir={top}/work"
    mount.mount("torpor-probe", f"{top}/merged", "overlay", 0, layers)
    path = f"{top}/merged/torpor-probe"
    with OwnedFd(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)) as fd:
        os.truncate(fd.fileno(), PAGE_SIZE)
        status = os.fstat(fd.fileno())
        with mmap.mmap(fd.fileno(), PAGE_SIZE), maps:
            shown = next(line.split()[3:5] for line in maps if line.endswith(f" {path}\n"))
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    return shown == [device, str(status.st_ino)]


# -- sockets and networks ----------------------------------------------------------------------------------------


def _ask_netlink(protocol: int, kind: int, flags: int, payload: bytes) -> int:
    """Send a request; 0, or the errno of the answer."""
    with socket.socket(_AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as sock:
        sock.settimeout(1)
        sock.bind((0, 0))
        sock.send(_NLMSG.pack(_NLMSG.size + len(payload), kind, NLM_F_REQUEST | flags, 1, 0) + payload)
        answer = sock.recv(1 << 16)
    # A dump that nobody can answer is no error: it is at its end, which says why.
    if _NLMSG.unpack_from(answer)[1] not in (NLMSG_ERROR, netlink.NLMSG_DONE):
        return 0
    code: int = struct.unpack_from("=i", answer, _NLMSG.size)[0]
    return -code


def _diag_knows(family: int, protocol: int) -> bool:
    request = struct.pack("=BBBBI48s", family, protocol, 0, 0, 0xFFFFFFFF, b"")
    return _ask_netlink(NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, request) == 0


def _net_diag_raw() -> bool:
    return all(_diag_knows(family, socket.IPPROTO_RAW) for family in (socket.AF_INET, socket.AF_INET6))


def _nsid() -> bool:
    with OwnedFd(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as fd:
        request = struct.pack("=B3xHHi", 0, 8, 3, fd.fileno())
        return _ask_netlink(NETLINK_ROUTE, RTM_GETNSID, 0, request) == 0


def _newifindex() -> bool:
    """Whether an interface may get a number when it is moved (5.13 and later): one below 0 is then looked at."""
    nobody = netlink.text(rtnetlink.IFLA_IFNAME, "torpor-nobody")
    message = rtnetlink.link_message(0, nobody, netlink.number(rtnetlink.IFLA_NEW_IFINDEX, 0xFFFFFFFF))
    return _ask_netlink(NETLINK_ROUTE, rtnetlink.RTM_SETLINK, NLM_F_ACK, message) == errno.ERANGE


def _nftables() -> bool:
    return _ask_netlink(NETLINK_NETFILTER, _NFT_MSG_GETGEN, 0, b"\0\0\0\0") == 0


def _has_ipt_legacy() -> bool:
    places = os.environ.get("PATH", "/usr/sbin:/sbin").split(":")
    return any(os.access(f"{place}/iptables-legacy", os.X_OK) for place in places)


def _sk_ns() -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, OwnedFd(fcntl.ioctl(sock.fileno(), SIOCGSKNS)):
        return True


def _sk_unix_file() -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock.fileno(), SIOCUNIXFILE)
        except OSError as error:
            return error.errno == errno.ENOENT  # a socket without a name has no file
    return True


def _tcp_repair() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
        return True


def _sockopt_buf_lock() -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        return sock.getsockopt(socket.SOL_SOCKET, SO_BUF_LOCK) >= 0


def _ipv6_freebind() -> bool:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        return True


def _tun() -> bool:
    """Whether there are such devices, and whether one can be made under its number."""
    with OwnedFd(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)) as fd:
        fcntl.ioctl(fd.fileno(), TUNSETIFINDEX, struct.pack("=I", _ANY_TUN_IFINDEX))
        return True


def _tun_ns() -> bool:
    """Whether a descriptor of such a device tells its network namespace (5.8 and later)."""
    with OwnedFd(os.open("/dev/net/tun", os.O_RDONLY | os.O_CLOEXEC)) as fd:
        with OwnedFd(fcntl.ioctl(fd.fileno(), SIOCGSKNS)):
            return True


def _apparmor_stacking() -> bool:
    with open("/sys/kernel/security/apparmor/features/domain/stack", encoding="ascii") as stream:
        return stream.read().strip() == "yes"


def _no() -> bool:
    return False


def _yes() -> bool:
    return True


# -- private -----------------------------------------------------------------------------------------------------


def _address(data: bytes) -> int:
    """Where the bytes are; the caller keeps them alive."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


def _fails_with(wanted: int, name: str, number: int, *words: int) -> bool:
    try:
        syscall(name, number, *words)
    except OSError as error:
        return error.errno == wanted
    return False


#: Name of the feature and its probe.
FEATURES: dict[str, Callable[[], bool]] = {
    "mnt_id": _mnt_id,
    "mem_dirty_track": _mem_dirty_track,
    "aio_remap": _aio_remap,
    "timerfd": _timerfd,
    "tun": _tun,
    "tun_ns": _tun_ns,
    "userns": _userns,
    "fdinfo_lock": _fdinfo_lock,
    "seccomp_suspend": _seccomp_suspend,
    "seccomp_filters": _seccomp_filters,
    "loginuid": _in_child(_loginuid),
    "cgroupns": _exists("/proc/self/ns/cgroup"),
    "autofs": _exists("/dev/autofs"),
    "tcp_half_closed": _tcp_repair,
    "compat_cr": _no,  # 32-bit tasks: nothing here looks for them
    "uffd": _uffd,
    "uffd-noncoop": _uffd_noncoop,
    "can_map_vdso": vdso.can_be_mapped,
    "sk_ns": _sk_ns,
    "sk_unix_file": _sk_unix_file,
    "net_diag_raw": _net_diag_raw,
    "nsid": _nsid,
    "link_nsid": _nsid,
    "kcmp_epoll": _kcmp_epoll,
    "timens": _exists("/proc/self/ns/time"),
    "external_net_ns": _yes,  # an engine that knows the word, which is all that is asked for
    "clone3_set_tid": _clone3_set_tid,
    "newifindex": _newifindex,
    "nftables": _nftables,
    "has_ipt_legacy": _has_ipt_legacy,
    "pidfd_store": _pidfd_store,
    "ns_pid": _ns_pid,
    "apparmor_stacking": _apparmor_stacking,
    "network_lock_nftables": _nftables,
    "sockopt_buf_lock": _sockopt_buf_lock,
    "memfd_hugetlb": _memfd_hugetlb,
    "move_mount_set_group": _move_mount_set_group,
    "openat2": _openat2,
    "get_rseq_conf": _get_rseq_conf,
    "ipv6_freebind": _ipv6_freebind,
    "pagemap_scan": _pagemap_scan(_PAGE_IS_PRESENT),
    "timer_cr_ids": _timer_cr_ids,
    "overlayfs_maps": _in_child(_overlayfs_maps),
    "breakpoints": _breakpoints,
    "pagemap_scan_guard_pages": _pagemap_scan(_PAGE_IS_GUARD),
}
