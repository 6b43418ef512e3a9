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
from torpor.kernel import errand, ptrace, userfaultfd
from torpor.kernel.arch import nr, vdso
from torpor.kernel.kcmp import kcmp
from torpor.kernel.pidfd import getfd, open_pidfd
from torpor.kernel.syscall import syscall
from torpor.kernel.uapi.inet import IPV6_FREEBIND
from torpor.kernel.uapi.kcmp import KCMP_EPOLL_TFD
from torpor.kernel.uapi.memfd import MFD_HUGETLB
from torpor.kernel.uapi.mount import MOVE_MOUNT_SET_GROUP
from torpor.kernel.uapi.netlink import (
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NETLINK_SOCK_DIAG,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_ERROR,
)
from torpor.kernel.uapi.rtnetlink import RTM_GETNSID
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
_NS_GET_PID_FROM_PIDNS = 0x8004B706
_TCP_REPAIR = 19
_PR_TIMER_CREATE_RESTORE_IDS = 77
_UFFD_NONCOOP = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE
_PAGEMAP_SCAN = 0xC0606610
_PAGE_IS_PRESENT, _PAGE_IS_GUARD = 1 << 3, 1 << 8


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


def _can_open(path: str, flags: int) -> Callable[[], bool]:
    def check() -> bool:
        with OwnedFd(os.open(path, flags | os.O_CLOEXEC)):
            return True

    return check


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


def _mem_dirty_track() -> bool:
    """By userfaultfd; CRIU means soft-dirty bits (``CONFIG_MEM_SOFT_DIRTY``), which need not be there."""
    return userfaultfd.can_track()


# -- tasks -------------------------------------------------------------------------------------------------------


@contextmanager
def _traced_child(options: int = 0) -> Iterator[Pid]:
    """A stopped child of ours, killed at the end."""
    reader, writer = os.pipe2(os.O_CLOEXEC)

    def wait() -> None:
        os.close(writer)
        os.read(reader, 1)

    with OwnedFd(reader), OwnedFd(writer), errand.sent(wait) as pid:
        ptrace.seize(pid, options | ptrace.PTRACE_O_EXITKILL)
        ptrace.interrupt(pid)
        os.waitpid(pid, 0)
        yield pid


def _seccomp_suspend() -> bool:
    with _traced_child(ptrace.PTRACE_O_SUSPEND_SECCOMP):
        return True


def _seccomp_filters() -> bool:
    with _traced_child() as pid:
        try:
            syscall("ptrace", nr.ptrace, ptrace.PTRACE_SECCOMP_GET_FILTER, pid, 0, 0)
        except OSError as error:
            # A task without filters: EINVAL where filters can be read, EIO where the request does not exist.
            return error.errno in (errno.EINVAL, errno.ENOENT)
        return True


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


def _ns_pid() -> bool:
    with OwnedFd(os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)) as fd:
        pid_here = int(os.readlink("/proc/self"))
        return int(fcntl.ioctl(fd.fileno(), _NS_GET_PID_FROM_PIDNS, pid_here)) > 0


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
        # An unknown flag is EINVAL; a known one gets as far as the path.
        return error.errno not in (errno.EINVAL, errno.ENOSYS)
    return True


def _overlayfs_maps() -> bool:
    with open("/proc/filesystems", encoding="ascii") as stream:
        return "overlay" in stream.read() and os.path.isdir("/proc/self/map_files")


# -- sockets and networks ----------------------------------------------------------------------------------------


def _ask_netlink(protocol: int, kind: int, flags: int, payload: bytes) -> int:
    """Send a request; 0, or the errno of the answer."""
    with socket.socket(_AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as sock:
        sock.settimeout(1)
        sock.bind((0, 0))
        sock.send(_NLMSG.pack(_NLMSG.size + len(payload), kind, NLM_F_REQUEST | flags, 1, 0) + payload)
        answer = sock.recv(1 << 16)
    if _NLMSG.unpack_from(answer)[1] != NLMSG_ERROR:
        return 0
    code: int = struct.unpack_from("=i", answer, _NLMSG.size)[0]
    return -code


def _net_diag_raw() -> bool:
    request = struct.pack("=BBBBI48s", socket.AF_INET, socket.IPPROTO_RAW, 0, 0, 0xFFFFFFFF, b"")
    return _ask_netlink(NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, request) == 0


def _nsid() -> bool:
    with OwnedFd(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as fd:
        request = struct.pack("=B3xHHi", 0, 8, 3, fd.fileno())
        return _ask_netlink(NETLINK_ROUTE, RTM_GETNSID, 0, request) == 0


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


def _apparmor_stacking() -> bool:
    with open("/sys/kernel/security/apparmor/features/domain/stack", encoding="ascii") as stream:
        return stream.read().strip() == "yes"


def _no() -> bool:
    return False


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
    "tun": _can_open("/dev/net/tun", os.O_RDWR),
    "tun_ns": _can_open("/dev/net/tun", os.O_RDWR),
    "userns": _exists("/proc/self/ns/user"),
    "fdinfo_lock": _fdinfo_lock,
    "seccomp_suspend": _seccomp_suspend,
    "seccomp_filters": _seccomp_filters,
    "loginuid": _can_open("/proc/self/loginuid", os.O_RDWR),
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
    "external_net_ns": _nsid,
    "clone3_set_tid": _clone3_set_tid,
    "newifindex": _nsid,
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
    "overlayfs_maps": _overlayfs_maps,
    "breakpoints": _breakpoints,
    "pagemap_scan_guard_pages": _pagemap_scan(_PAGE_IS_GUARD),
}
