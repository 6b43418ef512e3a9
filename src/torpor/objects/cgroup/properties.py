"""Files of a control group that are carried: limits, weights, who may write what.

Kernel view
    A file a property; which of them are carried is said by a table of controllers, which criu(8)'s ``--cgroup-props``
    extends.  Of ``cgroup.procs`` and ``tasks``, only owner and mode: a group of v2 is delegated with them, and then
    ``cgroup.threads`` has the same ones as ``cgroup.procs``.
Image
    ``cgroup_prop_entry``: name, value, owner and mode.  A file that takes one line a write and has several (``io.max``)
    is one entry a line, so that a reader which writes each value at once restores it, too.
Restore
    A name is one of a file in the group's own directory, of a controller of its hierarchy, and none that makes
    something happen (NEVER): whatever else an image says is refused.

    EARLY ones while the group is still empty, the others when the tasks are in it; the freezer last of all.  A value
    that is there already is not written: some files refuse even that.
Limits
    What has been counted (time, bytes, events) begins anew.  A property that the table does not name is not carried.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress

from torpor.base import log
from torpor.base.errors import RestoreError, UsageError
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.text import get_text, set_text
from torpor.objects.cgroup.model import V2

FREEZER_V1, FREEZER_V2 = "freezer.state", "cgroup.freeze"
_SUBTREE = "cgroup.subtree_control"
_PROCS = "cgroup.procs"
TYPE = "cgroup.type"
_DEVICES = "devices.list"

#: What must be there before the first task or child, or cannot be changed afterwards.
EARLY = frozenset(
    (
        "cpuset.cpus", "cpuset.mems", _DEVICES, "memory.kmem.limit_in_bytes", "memory.swappiness", "memory.oom_control",
        "memory.use_hierarchy", TYPE, _SUBTREE,
    )
)  # fmt: skip
#: Set when everything else is done.
LAST = frozenset((FREEZER_V1, FREEZER_V2))

#: Of v2, handed to whoever a group is delegated to, together with that of the processes (Linux's cgroup-v2.rst).
_THREADS = "cgroup.threads"
#: They move tasks, kill, give events or devices away, or name a program that the kernel runs; none of them is state.
NEVER = frozenset(
    (
        "release_agent", _THREADS, "cgroup.kill", "cgroup.event_control", "devices.allow", "devices.deny",
        "memory.force_empty", "memory.reclaim", "blkio.reset_stats", "cgroup.pressure", "irq.pressure",
    )
)  # fmt: skip
#: Those without a controller's name before a dot.
_PLAIN_NAMES = frozenset(("tasks", "notify_on_release"))
_PERMISSIONS = 0o777

_OF_V1 = ("cgroup.clone_children", "notify_on_release", _PROCS, "tasks")
_OF_V2 = (_PROCS, _SUBTREE, "cgroup.max.descendants", "cgroup.max.depth", FREEZER_V2, TYPE)
_NO_VALUE = frozenset((_PROCS, "tasks"))

#: Of v2, unknown to CRIU 4.2, and carried only where they are not as in any new group: many kernels have none of them.
_RARE = {
    "cpu.uclamp.min": "0.00", "cpu.uclamp.max": "max", "memory.swap.high": "max", "memory.zswap.max": "max",
    "memory.zswap.writeback": "1", "io.bfq.weight": "default 100", "io.latency": "", "io.prio.class": "no-change",
    **{f"hugetlb.{size}.{which}": "max" for size in ("2MB", "1GB") for which in ("max", "rsvd.max")},
}  # fmt: skip
#: Of each controller, in the order in which they are written.
_TABLE: dict[str, tuple[str, ...]] = {
    "cpu": ("cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.rt_period_us", "cpu.rt_runtime_us"),
    # The limit of memory before that of memory and swap together, which is never lower.
    "memory": (
        "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.swappiness", "memory.soft_limit_in_bytes",
        "memory.move_charge_at_immigrate", "memory.oom_control", "memory.use_hierarchy", "memory.kmem.limit_in_bytes",
        "memory.kmem.tcp.limit_in_bytes",
    ),
    "cpuset": (
        "cpuset.cpus", "cpuset.mems", "cpuset.memory_migrate", "cpuset.cpu_exclusive", "cpuset.mem_exclusive",
        "cpuset.mem_hardwall", "cpuset.memory_spread_page", "cpuset.memory_spread_slab", "cpuset.sched_load_balance",
        "cpuset.sched_relax_domain_level",
    ),
    "blkio": (
        "blkio.weight", "blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device",
        "blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device",
    ),
    "net_cls": ("net_cls.classid",),
    "net_prio": ("net_prio.ifpriomap",),
    "pids": ("pids.max",),
    "devices": (_DEVICES,),
    V2: (
        "cpuset.cpus", "cpuset.mems", "cpu.idle", "cpu.weight", "cpu.max", "cpu.max.burst", "memory.min", "memory.low",
        "memory.high", "memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "io.weight", "io.max",
        *_RARE,
    ),
}  # fmt: skip
#: One line a write.
_BY_LINES = frozenset(
    (
        "io.max", "io.weight", "io.bfq.weight", "io.latency", "blkio.throttle.read_bps_device",
        "blkio.throttle.write_bps_device",
        "blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device",
    )
)  # fmt: skip
_LLONG_MAX = str((1 << 63) - 1)
_SIZE = 65536


class Table:
    """The properties of each controller, as built in and as the policy says."""

    def __init__(self, *specs: str) -> None:
        self._table = dict(_TABLE)
        for spec in specs:
            for name, replaces, found in parse_spec(spec):
                known = () if replaces else self._table.get(name, ())
                self._table[name] = tuple(dict.fromkeys(known + found))

    def of(self, hierarchy: str) -> list[str]:
        """What is carried of a group of *hierarchy*, in the order of writing."""
        names = [name for controller in hierarchy.split(",") for name in self._table.get(controller, ())]
        return list(dict.fromkeys([*names, *(_OF_V2 if hierarchy == V2 else _OF_V1)]))


def parse_spec(text: str) -> list[tuple[str, bool, tuple[str, ...]]]:
    """criu(8)'s simplified YAML: controller, whether the built-in list is replaced, properties.  UsageError."""
    found: list[tuple[str, bool, tuple[str, ...]]] = []
    name: str | None = None
    strategy = ""
    # A backslash and an n stand for the end of a line: so the example in CRIU's manual has it when a shell passes it
    # on.
    for line in (line.strip() for line in text.replace("\\n", "\n").split("\n")):
        if not line:
            continue
        key, colon, value = line.removeprefix("-").strip().partition(":")
        key, value = _unquote(key.strip(), line), value.strip()
        if not line.startswith("-") and colon and not value:
            name, strategy = key, ""
        elif key == "strategy" and _unquote(value, line) in ("merge", "replace"):
            strategy = _unquote(value, line)
        elif key == "properties" and name is not None and strategy and value.startswith("[") and value.endswith("]"):
            words = [word.strip() for word in value[1:-1].split(",")]
            found.append((name, strategy == "replace", tuple(_unquote(word, line) for word in words if word)))
        else:
            raise UsageError(f"control group properties: {line!r} is not understood", hint="criu(8) shows the form")
    return found


def _unquote(word: str, line: str) -> str:
    if len(word) < 2 or word[0] != '"' or word[-1] != '"':
        raise UsageError(f"control group properties: {line!r} wants double quotes", hint="criu(8) shows the form")
    return word[1:-1]


# -- dump ----------------------------------------------------------------------------------------------------


def dump(directory: int, names: Iterable[str]) -> list[m.cgroup_prop_entry]:
    """Those of *names* that the group *directory* has."""
    found = []
    for name in names:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        except OSError:
            continue  # the kernel, or this group, has no such file, or gives it to be written only
        try:
            info = os.fstat(fd)
            value = "" if name in _NO_VALUE else _read(fd)
        except OSError:
            continue  # there, but not for a group of this type
        finally:
            os.close(fd)
        perms = m.cgroup_perms(mode=info.st_mode, uid=info.st_uid, gid=info.st_gid)
        if value == _RARE.get(name):
            continue
        values = value.split("\n") if name in _BY_LINES and value else [_normal(name, value)]
        for each in values:
            entry = m.cgroup_prop_entry(name=name, perms=perms)
            set_text(entry, "value", each)
            found.append(entry)
    return found


def _read(fd: int) -> str:
    return os.read(fd, _SIZE).decode(errors="surrogateescape").removesuffix("\n")


def _normal(name: str, value: str) -> str:
    """What a read value is to be written as."""
    if name == "memory.oom_control":
        return value.partition("\n")[0].removeprefix("oom_kill_disable").strip()
    return "-1" if value == _LLONG_MAX else value


# -- restore -------------------------------------------------------------------------------------------------


def restore(directory: int, entries: Sequence[m.cgroup_prop_entry], where: str, *, lenient: bool = False) -> None:
    """Write *entries*, in their order; RestoreError naming the file for one that is refused.  *where* is for that.

    *lenient*: one that is not there, since what is above the group does not give it that controller, is passed over.
    """
    refused = []
    # A group that becomes threaded has other controllers than it had before.
    for entry in sorted(entries, key=lambda entry: entry.name != TYPE):
        try:
            _set(directory, entry)
        except FileNotFoundError:
            if lenient:
                log.warn(f"control group {where} has no {entry.name} here; it was {get_text(entry.value)}")
            else:
                refused.append(entry)
        except OSError:
            # One may want another to be set first: the limit of memory and swap is not to be below that of memory.
            refused.append(entry)
    for entry in refused:
        try:
            _set(directory, entry)
        except OSError as error:
            raise RestoreError(
                f"control group {where}: {entry.name} cannot be set to {get_text(entry.value)!r}: {error.strerror}",
                hint="--manage-cgroups=none goes on without properties, =ignore without control groups",
            ) from None


def check_name(name: str, hierarchy: str) -> None:
    """ImageError for what is no property of a group of *hierarchy*."""
    prefix, dot, rest = name.partition(".")
    known = hierarchy == V2 or prefix == "cgroup" or prefix in hierarchy.split(",")
    is_property = name in _PLAIN_NAMES or (dot and rest and known)
    if "/" in name or "\0" in name or name in NEVER or not is_property:
        raise ImageError(
            f"cgroup.img: properties: {name!r} is no property of a control group of {hierarchy or 'v2'}",
            hint="--manage-cgroups=none goes on without properties, =ignore without control groups",
        )


def _set(directory: int, entry: m.cgroup_prop_entry) -> None:
    name, value = entry.name, get_text(entry.value)
    if name == _DEVICES:
        return _allow_devices(directory, value)
    if name == "net_prio.ifpriomap":
        return _set_priorities(directory, value)
    _set_owner(directory, entry)
    if name in _NO_VALUE or (name == TYPE and value != "threaded"):
        return
    current = _current(directory, name)
    if current == value:
        return
    if name == _SUBTREE:
        value = subtree_change(current or "", value)
    if name == "memory.kmem.limit_in_bytes":
        try:
            _write(directory, name, value)
        except OSError as error:
            # Linux 6.1 keeps the file and refuses to do what it says (58056f77502f).
            if error.errno != errno.EOPNOTSUPP:
                raise
    elif value:
        _write(directory, name, value)
    return None


def _set_owner(directory: int, entry: m.cgroup_prop_entry) -> None:
    # CRIU adds the freezer's state to a group with whatever was in memory for owner and mode.
    if not entry.HasField("perms") or entry.name == FREEZER_V1:
        return
    _own(directory, entry.name, entry.perms)
    if entry.name == _PROCS:
        with suppress(FileNotFoundError):  # v1 has none
            _own(directory, _THREADS, entry.perms)


def _own(directory: int, name: str, perms: m.cgroup_perms) -> None:
    info = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISREG(info.st_mode):
        raise ImageError(f"cgroup.img: properties: {name} is no file")
    if (info.st_uid, info.st_gid) != (perms.uid, perms.gid):
        os.chown(name, perms.uid, perms.gid, dir_fd=directory, follow_symlinks=False)
    if info.st_mode & 0o7777 != perms.mode & _PERMISSIONS:
        os.chmod(name, perms.mode & _PERMISSIONS, dir_fd=directory)


def _current(directory: int, name: str) -> str | None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except PermissionError:
        return None  # to be written only
    try:
        return _normal(name, _read(fd))
    except OSError:
        return None
    finally:
        os.close(fd)


def subtree_change(current: str, wanted: str) -> str:
    """What to write to ``cgroup.subtree_control``."""
    has, wants = current.split(), wanted.split()
    return " ".join([f"-{name}" for name in has if name not in wants] + [f"+{name}" for name in wants])


def _allow_devices(directory: int, value: str) -> None:
    """Only the list of what is allowed can be read; it is written by forbidding all, then allowing line by line."""
    if _current(directory, _DEVICES) == value:
        return
    _write(directory, "devices.deny", "a")
    for line in value.split("\n"):
        if line:
            _write(directory, "devices.allow", line)


def _set_priorities(directory: int, value: str) -> None:
    """One line a write; 0 is what an interface has anyway.  One that is not here has no priority to be set."""
    for line in value.split("\n"):
        if line and line.split()[-1] != "0":
            try:
                _write(directory, "net_prio.ifpriomap", line)
            except OSError as error:
                if error.errno not in (errno.ENODEV, errno.EINVAL):
                    raise


def _write(directory: int, name: str, value: str) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(fd, value.encode(errors="surrogateescape"))
    finally:
        os.close(fd)
