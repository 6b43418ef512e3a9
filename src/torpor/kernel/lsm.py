"""Security modules that give tasks a label, see lsm_list_modules(2) and proc_pid_attr(5): AppArmor and SELinux.

A label is read and written by files in ``/proc/PID/attr``, written by the task itself only.  A kernel without any has
the files as well, and answers EINVAL.
"""

from __future__ import annotations

import errno
import functools

from torpor.base.ids import Pid
from torpor.kernel.procfs.small import read_small

APPARMOR = "apparmor"
SELINUX = "selinux"

_PROFILES = "/sys/kernel/security/apparmor/profiles"
_CONTEXT = "/sys/fs/selinux/context"


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


def parse_profile(label: str) -> str:
    """AppArmor's ``name (mode)``: the name, "" for a task that is not confined."""
    name = label.rpartition(" (")[0] if label.endswith(")") else label
    return "" if name == "unconfined" else name


def is_known(label: str) -> bool:
    """Whether the running kernel can give a task that label; True where that cannot be found out."""
    try:
        if active() == SELINUX:
            with open(_CONTEXT, "wb", buffering=0) as stream:
                stream.write(label.encode() + b"\0")
            return True
        lines = read_small(_PROFILES).splitlines()
    except OSError as error:
        return error.errno != errno.EINVAL
    # A profile of another policy namespace, or several at once, are not in this list by that name.
    return ":" in label or "//&" in label or label in map(parse_profile, lines)


def _read(path: str) -> str | None:
    try:
        return read_small(path).rstrip("\0\n")
    except OSError:
        return None
