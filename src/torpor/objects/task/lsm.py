"""Security labels of a thread: its AppArmor profile, or its SELinux context; and those for what it makes.

Kernel view
    ``/proc/PID/task/TID/attr/current``; with SELinux ``exec``, ``fscreate``, ``keycreate`` and ``sockcreate``.
Image
    ``creds_entry.lsm_profile`` and ``lsm_sockcreate``, and ``torpor_lsm_*`` for the others;
    ``inventory_entry.lsmtype`` says whose they are.  No profile stands for a task that AppArmor does not confine.
Restore
    The thread opens its own attributes while it may, and writes those that differ when its credentials are set, before
    no_new_privs; its own label last, which may forbid the others.  A process with threads can change its SELinux
    context only before it has them: they are made when all else is there (``threads_last``).
Limits
    Policies are not carried: a profile must be loaded on the destination, and is asked for before anything is made, as
    is whether we may give a task that SELinux context.
    AppArmor's hats stay on, for the kernel does not tell the word that takes one off; what a task has said of its next
    program alone (aa_change_onexec) is forgotten.
    Descriptors are opened by us: a domain must be allowed to use those that ours has opened (``fd use``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from torpor.base import log
from torpor.base.errors import NotPermittedError, RestoreError, TorporError
from torpor.base.ids import Pid
from torpor.images import messages as m
from torpor.kernel import lsm
from torpor.kernel.arch import nr
from torpor.kernel.uapi.fcntl import AT_FDCWD, O_WRONLY
from torpor.objects.model import DumpProcess, DumpThread, RestoreProcess, RestoreThread
from torpor.tracee.batch import Batch

_TYPES = {"": m.lsmtype.NO_LSM, lsm.SELINUX: m.lsmtype.SELINUX, lsm.APPARMOR: m.lsmtype.APPARMOR}
_NAMES = {lsm.SELINUX: "SELinux", lsm.APPARMOR: "AppArmor", "": "no security module"}
_CURRENT = "current"
#: What each is called in the image.
_FIELDS = {
    "exec": "torpor_lsm_exec",
    "fscreate": "torpor_lsm_fscreate",
    "keycreate": "torpor_lsm_keycreate",
    "sockcreate": "lsm_sockcreate",
}
#: Between a profile of AppArmor and one inside of it, which may be a hat.
_INSIDE = "//"
#: What is written to have none of a kind.
_NONE = "\n"
_CLASSES = {6: "tcp_socket", 17: "udp_socket"}
_DGRAM = 2
_MODULE = f"load torpor's module of policy (semodule -i {lsm.MODULE}), or allow it by one of your own"
_PODMANS = "containers-default-"


def type_here() -> int:
    """The ``lsmtype`` of this machine."""
    return _TYPES[lsm.active()]


def look(thread: DumpThread) -> None:
    """Fill in the labels, if this kernel gives any."""
    active = lsm.active()
    if not active:
        return
    creds, pid = thread.core.thread_core.creds, thread.process.pid
    if label := _read(pid, thread.tid, _CURRENT):
        creds.lsm_profile = label
    # AppArmor tells of nobody else what its next program is to run as, and what profile it has a hat on of: instead it
    # tells the reader's (apparmor_getprocattr() in security/apparmor/lsm.c).
    if active == lsm.APPARMOR and _INSIDE in label.replace(lsm.STACK, ""):
        log.warn(f"{thread.process.describe()}: if {label} is a hat of AppArmor's, it is not to be taken off again")
    for name in _FIELDS if active == lsm.SELINUX else ():
        if label := _read(pid, thread.tid, name):
            setattr(creds, _FIELDS[name], label)


def tracing_problems(process: DumpProcess) -> Iterator[TorporError]:
    """Why SELinux would not let us look into it, seen before anything is stopped."""
    if lsm.active() != lsm.SELINUX:
        return
    label = lsm.read_label(process.pid, process.pid, _CURRENT)
    if denied := lsm.denial(lsm.own_label(), label, "process", "ptrace"):
        yield NotPermittedError(f"{process.describe()} cannot be looked into: {denied}", hint=_MODULE)


def problems(process: DumpProcess) -> Iterator[TorporError]:
    """What else would stand in the way of a dump, when its mappings are known."""
    if lsm.active() != lsm.SELINUX:
        return
    from torpor.tracee import borrow

    label = lsm.read_label(process.pid, process.pid, _CURRENT)
    if lsm.denial(label, label, "process", "execmem") and not borrow.find_unused_code(process.pid, process.maps):
        yield borrow.no_room(process.describe(), label)


def wanted_to_look_into(pid: Pid) -> str:
    """What rules AppArmor wants for it, if one of its profiles confines us; else ""."""
    own = lsm.own_label() if lsm.active() == lsm.APPARMOR else ""
    if not own:
        return ""
    label = _read(pid, pid, _CURRENT)
    rule = f"AppArmor's {own} confines us, which wants the rule ptrace (read, trace) peer={label or 'unconfined'}"
    return f"{rule}, and {label} the rule ptrace (readby, tracedby) peer={own}" if label else rule


def changes(
    processes: Iterable[RestoreProcess], image_type: int, wanted: str, changed: Mapping[str, str]
) -> dict[str, str]:
    """What labels become: *changed* (``--lsm-map``), and with *wanted* (``--lsm-profile``) what tasks have and make.

    A container gets other categories with another name: its sockets and files have those of its tasks, or it could
    not use them.
    """
    found = dict(changed)
    if image_type == m.lsmtype.SELINUX and (new := _parse(wanted)):
        for label in {thread.core.thread_core.creds.lsm_profile for each in processes for thread in each.threads}:
            found.setdefault(label, new)
            old_level, new_level = _level(label), _level(new)
            if ":" in old_level and new_level:
                found.setdefault(old_level, new_level)
    return found


def _level(label: str) -> str:
    return label.split(":", 3)[3] if label.count(":") >= 3 else ""


def plan(
    processes: Iterable[RestoreProcess], image_type: int, wanted: str, changed: Mapping[str, str] | None = None
) -> None:
    """Note what label each thread is to get.

    *wanted*: ``--lsm-profile``, ``TYPE:LABEL``.  *changed*: what labels become, see ``changes``.
    RestoreError where this kernel has no such labels, NotPermittedError where its policy does not let us give them.
    """
    other = _parse(wanted)
    checked: set[str] = set()
    for process in processes:
        for thread in process.threads:
            creds = thread.core.thread_core.creds
            if not creds.lsm_profile:
                continue
            if not other and image_type != type_here():
                raise RestoreError(
                    f"pid {process.ns_pid} has the {_name_of(image_type)} label {creds.lsm_profile}, and here is "
                    f"{_NAMES[lsm.active()]}",
                    hint="restore where that is active, or name a label of this machine's: --lsm-profile TYPE:LABEL",
                )
            thread.label = other or lsm.relabel(creds.lsm_profile, changed)
            if thread.label not in checked:
                _check(thread.label, process)
                checked.add(thread.label)
            if image_type == type_here():
                thread.labels = {name: lsm.relabel(getattr(creds, field), changed) for name, field in _FIELDS.items()}
        leader = process.threads[0]
        process.threads_last = len(process.threads) > 1 and lsm.active() == lsm.SELINUX and _is_other(leader.label)


def plan_files(
    files: Iterable[tuple[m.file_entry, str]], image_type: int, changed: Mapping[str, str] | None = None
) -> dict[int, str]:
    """The label that each file is to have, by its id, where it is another than ours.

    *files*: entries with the label that the images have for them.  RestoreError for one that is not known here,
    NotPermittedError where we may not make such.
    """
    if lsm.active() != lsm.SELINUX or image_type != m.lsmtype.SELINUX:
        return {}
    own, found, checked = lsm.own_label(), dict[int, str](), set[tuple[str, str]]()
    for entry, old in files:
        label = lsm.relabel(old, changed)
        if not label or label == own:
            continue
        found[entry.id] = label
        if ("", label) not in checked:
            checked.add(("", label))
            _check_known(label, f"files.img: file {entry.id}")
        kind = _socket_class(entry)
        if kind and (kind, label) not in checked:
            checked.add((kind, label))
            for target, each, permission in ((own, "process", "setsockcreate"), (label, kind, "create")):
                if denied := lsm.denial(own, target, each, permission):
                    raise NotPermittedError(f"a socket with the label {label} cannot be made: {denied}", hint=_MODULE)
    return found


def _socket_class(entry: m.file_entry) -> str:
    """The class of its label, of the families that most sockets are of; "" for others."""
    if entry.HasField("isk"):
        return _CLASSES.get(entry.isk.proto, "")
    if entry.HasField("usk"):
        return "unix_dgram_socket" if entry.usk.type == _DGRAM else "unix_stream_socket"
    return ""


def _is_other(label: str) -> bool:
    return bool(label) and label != lsm.own_label()


def _parse(wanted: str) -> str:
    if not wanted:
        return ""
    kind, _, label = wanted.partition(":")
    if kind not in (lsm.APPARMOR, lsm.SELINUX) or not label:
        raise RestoreError(f"--lsm-profile {wanted}: neither apparmor:PROFILE nor selinux:CONTEXT")
    if kind != lsm.active():
        raise RestoreError(f"--lsm-profile {wanted}: {_NAMES[kind]} is not active here")
    return label


def _name_of(image_type: int) -> str:
    return next((_NAMES[name] for name, number in _TYPES.items() if number == image_type), "unknown")


def _check_known(label: str, who: str) -> None:
    if lsm.is_known(label):
        return
    load = "load it (apparmor_parser, semodule), or name another: --lsm-profile TYPE:LABEL, --lsm-map OLD=NEW"
    if label.startswith(_PODMANS):
        load += "; Podman loads its own when it starts a container, and torpor restore CONTAINER has it do so"
    raise RestoreError(f"{who}: this machine's {_NAMES[lsm.active()]} does not know {label}", hint=load)


def _check(label: str, process: RestoreProcess) -> None:
    _check_known(label, f"pid {process.ns_pid}")
    if not _is_other(label):
        return
    own = lsm.own_label()
    if lsm.active() == lsm.APPARMOR and lsm.may_change_profile(own, label) is False:
        raise NotPermittedError(
            f"pid {process.ns_pid} cannot be given its profile: {own}, which confines us, has no rule for it",
            hint=f"add one to it: change_profile -> {label},; or restore from outside of it",
        )
    if lsm.active() != lsm.SELINUX:
        return
    for source, target, kind, permission in (
        (own, own, "process", "setcurrent"), (own, label, "process", "dyntransition"), (label, own, "fd", "use"),
    ):  # fmt: skip
        if denied := lsm.denial(source, target, kind, permission):
            raise NotPermittedError(
                f"pid {process.ns_pid} cannot be given its context: {denied}",
                hint=f"{_MODULE}; or name another context: --lsm-map OLD=NEW",
            )


def may_search_own_keys(thread: DumpThread) -> bool:
    """Whether a thread may ask for its keyrings, as far as the policy tells."""
    if lsm.active() != lsm.SELINUX:
        return True
    label = _read(thread.process.pid, thread.tid, _CURRENT)
    return all(lsm.allows(label, label, "key", each) is not False for each in ("search", "read"))


@contextmanager
def labelling_keys(thread: RestoreThread, batch: Batch) -> Iterator[None]:
    """What the batch makes of keys meanwhile gets the label that the thread is going to have."""
    label = thread.label if lsm.active() == lsm.SELINUX and _is_other(thread.label) else ""
    if label:
        _write(batch, "keycreate", label)
    yield
    if label:
        _write(batch, "keycreate", _NONE)


def _write(batch: Batch, name: str, label: str) -> None:
    path, data = batch.path(f"/proc/thread-self/attr/{name}"), batch.data(label.encode(errors="surrogateescape"))
    attribute = batch.call(nr.openat, AT_FDCWD, path, O_WRONLY, 0, may_fail=True)
    batch.call(nr.write, attribute, data, data.size, may_fail=True)
    batch.call(nr.close, attribute, may_fail=True)


def open_attributes(thread: RestoreThread, batch: Batch) -> None:
    """While the thread may still open what belongs to root: those that are to be others than they are."""
    for name, label in _to_write(thread):
        path = batch.path(f"/proc/thread-self/attr/{lsm.attribute(name)}")
        thread.attributes[name] = (batch.call(nr.openat, AT_FDCWD, path, O_WRONLY, 0), label)


def restore(thread: RestoreThread, batch: Batch) -> None:
    """Write what was opened."""
    for name, (fd, label) in thread.attributes.items():
        data = batch.data(label.encode(errors="surrogateescape"))
        batch.call(nr.write, fd, data, data.size)
        batch.call(nr.close, fd)
        if name == _CURRENT and not lsm.may_signal_as(thread.label, thread.runner.stop_signal):
            thread.runner.by_calls = True
    thread.attributes.clear()


def _to_write(thread: RestoreThread) -> list[tuple[str, str]]:
    if not thread.label:
        return []
    is_apparmor = lsm.active() == lsm.APPARMOR
    pid, tid = thread.process.pid, thread.runner.tid
    found = []
    for name, label in thread.labels.items():
        if not is_apparmor and label != _read(pid, tid, name):
            found.append((name, label or _NONE))
    if thread.label != _read(pid, tid, _CURRENT):
        found.append((_CURRENT, f"changeprofile {thread.label}" if is_apparmor else thread.label))
    return found


def _read(pid: Pid, tid: Pid, name: str) -> str:
    label = lsm.read_label(pid, tid, name)
    return lsm.parse_profile(label) if lsm.active() == lsm.APPARMOR else label
