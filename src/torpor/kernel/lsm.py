"""Security modules that give tasks a label, see lsm_list_modules(2) and proc_pid_attr(5): AppArmor and SELinux.

A label is read and written by files in ``/proc/PID/attr``, written by the task itself only.  A kernel without any has
the files as well, and answers EINVAL.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torpor.base.ids import Pid
from torpor.kernel import signal
from torpor.kernel.procfs.small import read_small

APPARMOR = "apparmor"
SELINUX = "selinux"
#: Between the profiles of AppArmor that confine a task together.
STACK = "//&"

_PROFILES = "/sys/kernel/security/apparmor/profiles"
#: Rules for SELinux that a restore of tasks of other domains needs.
MODULE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "policy", "torpor.cil")

_NAMESPACES = "/sys/kernel/security/apparmor/policy/namespaces"
_QUERY = "/sys/kernel/security/apparmor/.access"
_CONTEXT = "/sys/fs/selinux/context"
_ACCESS = "/sys/fs/selinux/access"
_CLASS = "/sys/fs/selinux/class"
#: The extended attribute that SELinux's label of a file is read and written by.
XATTR = "security.selinux"
#: Below /proc: what label a thread's sockets get; what is written for the usual one.
SOCKCREATE = "thread-self/attr/sockcreate"
NO_LABEL = b"\n"
_ENFORCE = "/sys/fs/selinux/enforce"
_CLASS_FILE, _CLASS_SIGNAL = 2, 10
_MAY_CHANGE_PROFILE = 0x40000000
#: The source's domain is permissive, nothing is enforced: AVD_FLAGS_PERMISSIVE, security/selinux/include/security.h.
_PERMISSIVE = 1
_MAY_RECEIVE, _MAY_SEND = 4, 2
#: Those that SELinux has a permission of their own for.
_SIGNALS = {0: "signull", signal.SIGKILL: "sigkill", signal.SIGSTOP: "sigstop", signal.SIGCHLD: "sigchld"}


@functools.cache
def active() -> str:
    """APPARMOR, SELINUX, or "" for none that is known here."""
    if _read("/proc/self/attr/apparmor/current") is not None:
        return APPARMOR
    label = _read("/proc/self/attr/current")
    if label is None:
        return ""
    # A context of SELinux has three or four parts; AppArmor says "unconfined" or a profile and its mode.
    if label.count(":") >= 2 and " " not in label:
        return SELINUX
    return APPARMOR if label == "unconfined" or label.endswith(")") else ""


def attribute(name: str) -> str:
    """The file below ``attr`` that the active module answers by (``current``, ``sockcreate``)."""
    own = f"{active()}/{name}"
    return own if active() == APPARMOR and _read(f"/proc/self/attr/{own}") is not None else name


def read_label(pid: Pid, tid: Pid, name: str) -> str:
    """A label of a thread; "" for none."""
    return _read(f"/proc/{pid}/task/{tid}/attr/{attribute(name)}") or ""


def own_label() -> str:
    """Our own: that of what we make."""
    label = _read(f"/proc/thread-self/attr/{attribute('current')}") or ""
    return parse_profile(label) if active() == APPARMOR else label


def parse_profile(label: str) -> str:
    """AppArmor's ``name (mode)``: the name, "" for a task that is not confined."""
    name = label.rpartition(" (")[0] if label.endswith(")") else label
    return "" if name == "unconfined" else name


def relabel(label: str, changed: Mapping[str, str] | None) -> str:
    """What a label becomes: the whole of it is named, or of SELinux's the type or the level, of AppArmor's one part."""
    if not changed or not label or label in changed:
        return changed.get(label, label) if changed else label
    parts = label.split(":", 3)
    if len(parts) >= 3 and STACK not in label and not label.startswith(":"):
        return ":".join([*parts[:2], *(changed.get(part, part) for part in parts[2:])])
    return STACK.join(changed.get(part, part) for part in label.split(STACK))


def relabel_bytes(value: bytes, changed: Mapping[str, str]) -> bytes:
    """The same of a file's attribute."""
    return (
        relabel(value.rstrip(b"\0").decode(errors="surrogateescape"), changed).encode(errors="surrogateescape") + b"\0"
    )


def is_known(label: str) -> bool:
    """Whether the running kernel can give a task that label; True where that cannot be found out."""
    try:
        if active() == SELINUX:
            _write(_CONTEXT, label.encode() + b"\0")
            return True
        loaded = profiles()
    except OSError as error:
        return error.errno != errno.EINVAL
    namespace = ""
    for part in label.split(STACK):
        # One that names no namespace is of that of the one before (aa_label_strn_parse() in security/apparmor/label.c).
        name = part
        if part.startswith(":"):
            namespace, _, name = part[1:].partition(":")
        if not _is_loaded(namespace, name.removeprefix("//"), loaded):
            return False
    return True


def profiles() -> set[str]:
    """Those that AppArmor has loaded.  OSError where it does not tell."""
    return set(map(parse_profile, read_small(_PROFILES).splitlines()))


def _is_loaded(namespace: str, profile: str, loaded: set[str]) -> bool:
    """Profiles of namespaces below are listed as ``:a//b:profile``; every namespace has "unconfined"."""
    if profile == "unconfined":
        return not namespace or os.path.isdir(f"{_NAMESPACES}/{namespace.replace('//', '/namespaces/')}")
    return (f":{namespace}:{profile}" if namespace else profile) in loaded


def read_file_label(fd: int) -> str:
    """SELinux's label of an open file; "" where it does not tell."""
    try:
        return os.getxattr(fd, XATTR).rstrip(b"\0").decode(errors="surrogateescape")
    except OSError:
        return ""


def write_file_label(fd: int, label: str) -> None:
    """Give it to an open file that does not have it.  OSError."""
    if read_file_label(fd) != label:
        os.setxattr(fd, XATTR, label.encode(errors="surrogateescape") + b"\0")


@contextmanager
def labelling_sockets(label: str, before: str = "") -> Iterator[None]:
    """Have sockets that we make get that label of SELinux's, "" for the usual; *before* again afterwards.  OSError."""
    _set_socket_label(label)
    try:
        yield
    finally:
        _set_socket_label(before)


def _set_socket_label(label: str) -> None:
    _write(f"/proc/{SOCKCREATE}", label.encode(errors="surrogateescape") or NO_LABEL)


def may_signal_itself(pid: Pid, number: int) -> bool:
    """Whether the policy lets a task send itself that signal, asked so that no denial is logged.

    False where it is not told.
    """
    if not active():
        return True
    label = read_label(pid, pid, "current")
    return may_signal_as(label if active() == SELINUX else parse_profile(label), number)


def may_signal_as(label: str, number: int) -> bool:
    """The same of a task that has, or is going to have, that label."""
    if active() == SELINUX:
        return bool(allows(label, label, "process", _SIGNALS.get(number, "signal")))
    return _may_signal(label, number)


def allows(source: str, target: str, kind: str, permission: str) -> bool | None:
    """Whether SELinux's policy has the rule ``allow SOURCE TARGET:KIND PERMISSION``; None if it is not told.

    security_compute_av(3), which logs nothing.
    """
    try:
        number = read_small(f"{_CLASS}/{kind}/index").strip()
        bit = 1 << int(read_small(f"{_CLASS}/{kind}/perms/{permission}")) - 1
        answer = _transact(_ACCESS, f"{source} {target} {number}".encode(errors="surrogateescape")).split()
        return bool(int(answer[0], 16) & bit or int(answer[5], 16) & _PERMISSIVE)
    except (OSError, ValueError, IndexError):
        return None


def denial(source: str, target: str, kind: str, permission: str) -> str:
    """What SELinux would say of it, "" where it would allow it, does not enforce anything, or does not tell."""
    if allows(source, target, kind, permission) is not False or not is_enforcing():
        return ""
    return f"avc: denied {{ {permission} }} for scontext={source} tcontext={target} tclass={kind}"


def is_enforcing() -> bool:
    """Whether SELinux refuses what its policy does not allow."""
    return _read(_ENFORCE) == "1"


def may_change_profile(profile: str, other: str) -> bool | None:
    """Whether AppArmor lets a task with that profile, which is none if empty, change to another; None if not told."""
    if not profile:
        return True
    allowed = _query(profile, bytes((_CLASS_FILE,)) + other.encode(errors="surrogateescape"))
    return None if allowed is None else bool(allowed & _MAY_CHANGE_PROFILE)


def _may_signal(profile: str, number: int) -> bool:
    """Both ends of it are the same profile.  Of several at once each would have to be asked."""
    if not profile:
        return True
    name = profile.encode(errors="surrogateescape")
    allowed = _query(profile, bytes((_CLASS_SIGNAL, number)) + name)
    return allowed is not None and not ~allowed & (_MAY_SEND | _MAY_RECEIVE)


def _query(profile: str, what: bytes) -> int | None:
    """What that profile allows, aa_query_label(2); None if the kernel does not tell."""
    try:
        answer = _transact(_QUERY, b"label\0%b\0%b" % (profile.encode(errors="surrogateescape"), what))
        return int(answer.split()[1], 16)
    except (OSError, ValueError, IndexError):
        return None


def _transact(path: str, query: bytes) -> str:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(fd, query)
        return os.read(fd, 4096).decode()
    finally:
        os.close(fd)


def _write(path: str, data: bytes) -> None:
    # Not to be created: that alone would be denied, and logged.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def _read(path: str) -> str | None:
    try:
        return read_small(path).rstrip("\0\n")
    except OSError:
        return None
