"""Files that cannot be carried, each with its reason.

Kernel view
    ``anon_inode:[NAME]`` links, and device numbers.
Image
    None: the dump is refused.
Restore
    An entry of such a kind is refused, too: no dump writes one.
Limits
    What a driver keeps cannot be known: a device is refused unless one of the kinds before this one knows it.
"""

from __future__ import annotations

import os
import stat

from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.objects.files.model import FileKind, OpenFile
from torpor.objects.session import DumpContext, RestoreContext

_CLOSE = "close it before the checkpoint"
#: What stands in the link -> (why not, what to do).
ANONYMOUS: dict[str, tuple[str, str]] = {
    "[io_uring]": ("io_uring keeps requests inside the kernel, where nobody can see them", "run it without io_uring"),
    "[perf_event]": ("the counters of a perf event cannot be set", _CLOSE),
    "[userfaultfd]": ("page faults that wait in a userfaultfd cannot be carried", _CLOSE),
    "bpf-prog": ("BPF programs are verified when they are loaded and cannot be read back", _CLOSE),
    "bpf_link": ("BPF links are ties to kernel code", _CLOSE),
    "btf": ("BTF objects are not supported", _CLOSE),
    "kvm-vm": ("virtual machines live in the kernel's KVM", "checkpoint the guest by its own hypervisor"),
    "kvm-vcpu": ("virtual machines live in the kernel's KVM", "checkpoint the guest by its own hypervisor"),
    "[landlock-ruleset]": ("the rules of a landlock ruleset cannot be read", _CLOSE),
    "seccomp notify": ("a seccomp listener belongs to a filter of another process", _CLOSE),
    "[fscontext]": ("a mount that is being configured cannot be read", _CLOSE),
    "[secretmem]": ("secret memory cannot be read by design", "run it without memfd_secret"),
    "sync_file": ("fences belong to a device driver", _CLOSE),
    "dmabuf": ("DMA buffers belong to a device", _CLOSE),
    "[pidfd]": ("the process that a pidfd refers to is not in the tree", _CLOSE),
}
_PREFIXES = (("/dmabuf:", "dmabuf"), ("/secretmem", "[secretmem]"), ("anon_inode:kvm-vcpu", "kvm-vcpu"))
#: Character devices by major number.
_DRIVER = "its driver may keep state"
MAJORS: dict[int, str] = {
    1: "memory devices show the machine itself",
    10: "a miscellaneous device has state in its driver",
    29: "a frame buffer has state in its driver",
    116: "sound devices have state in their driver",
    195: "GPUs have state in their driver",
    226: "GPUs have state in their driver",
}


def matches(file: OpenFile) -> bool:
    """RefusedError, always: this kind is the last, and no file gets an entry of it."""
    mode = file.stat.st_mode
    name = _anonymous_name(file.target)
    if name in ANONYMOUS:
        why, hint = ANONYMOUS[name]
        raise file.refuse(f"{file.target}: {why}", hint)
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        kind = "block" if stat.S_ISBLK(mode) else "character"
        major, minor = os.major(file.stat.st_rdev), os.minor(file.stat.st_rdev)
        why = MAJORS.get(major, _DRIVER) if kind == "character" else "what was written to it may not be there yet"
        raise file.refuse(f"{file.target}: {kind} device {major}:{minor} cannot be carried: {why}", _CLOSE)
    raise file.refuse(f"{file.target} is of a kind that cannot be checkpointed", hint="close it and try again")


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Raise RefusedError; never reached, since ``matches`` does so before."""
    raise file.refuse(f"{file.target} is of a kind that cannot be checkpointed")


def _anonymous_name(target: str) -> str:
    for prefix, name in _PREFIXES:
        if target.startswith(prefix):
            return name
    return target.removeprefix("anon_inode:")


def restore(entry: m.file_entry, context: RestoreContext) -> int:
    """RestoreError: no image has such an entry."""
    raise RestoreError(f"file {entry.id} is of a kind that cannot be restored")


KIND = FileKind("refused", -1, matches, dump, restore)
