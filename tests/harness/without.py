"""The engine without something that newer kernels have: python without.py NAME COMMAND...

A seccomp filter answers as a kernel does that does not know the call, or the request.  What the command starts gets it
too; what it finds running does not.  (clone3's set_tid cannot be taken away: a filter does not see what a pointer leads
to.  All kernels that torpor runs on have it.)
"""

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torpor.kernel.arch import nr
from torpor.kernel.uapi.prctl import PR_SET_SECCOMP

_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_MODE_FILTER = 2
_FIRST_ARG = 16


@dataclass(frozen=True)
class Rule:
    """A call, if need be only one whose argument number `arg` has in its lower half `value`, and its answer."""

    call: int
    answer: int = errno.ENOSYS
    arg: int | None = None
    value: int = 0


def _calls(*numbers: int, answer: int = errno.ENOSYS) -> tuple[Rule, ...]:
    return tuple(Rule(number, answer) for number in numbers)


def _requests(call: int, arg: int, answer: int, *values: int) -> tuple[Rule, ...]:
    return tuple(Rule(call, answer, arg, value) for value in values)


#: What is taken away, and since which Linux it is there.  All that came after 5.10 stands first.
TAKEN: dict[str, tuple[Rule, ...]] = {
    "pagemap_scan": _requests(nr.ioctl, 1, errno.ENOTTY, 0xC0606610),  # 6.7
    "mount_setattr": _calls(nr.mount_setattr),  # 5.12
    "mount_groups": _requests(nr.move_mount, 4, errno.EINVAL, 0x100, 0x144),  # MOVE_MOUNT_SET_GROUP, 5.15
    "rseq": _requests(nr.ptrace, 0, errno.EIO, 0x420F),  # PTRACE_GET_RSEQ_CONFIGURATION, 5.13
    "user_dispatch": _requests(nr.ptrace, 0, errno.EIO, 0x4210, 0x4211),  # 6.4
    "prctls": _requests(nr.prctl, 0, errno.EINVAL, 62, 65, 66, 67, 68, 77, 0x53564D41),  # 5.14 to 6.16, PR_SET_VMA
    "process_mrelease": _calls(nr.process_mrelease, nr.process_madvise, nr.epoll_pwait2, nr.memfd_secret),  # 5.10 on
    "landlock": _calls(nr.landlock_create_ruleset, nr.landlock_add_rule, nr.landlock_restrict_self),  # 5.13
    "mount_queries": _calls(nr.statmount, nr.listmount),  # 6.8
    "cachestat": _calls(nr.cachestat, nr.fchmodat2, nr.mseal, nr.lsm_get_self_attr),  # 6.5 to 6.10
    "registrations": _requests(nr.membarrier, 0, errno.EINVAL, 1 << 9),  # MEMBARRIER_CMD_GET_REGISTRATIONS, 6.3
    # What any kernel since 5.10 has, but not every configuration, or every sandbox.
    "pidfd_getfd": _calls(nr.pidfd_getfd, answer=errno.ENOSYS),
    "kcmp": _calls(nr.kcmp),  # CONFIG_KCMP
    "statx": _calls(nr.statx),
    "close_range": _calls(nr.close_range),
    "openat2": _calls(nr.openat2),
    "mount_api": _calls(nr.open_tree, nr.move_mount, nr.fsopen, nr.fsconfig, nr.fsmount, nr.fspick),
    "userfaultfd": _calls(nr.userfaultfd),
    "keys": _calls(nr.keyctl, nr.add_key, nr.request_key),  # CONFIG_KEYS
    "numa": _calls(nr.get_mempolicy, nr.set_mempolicy, nr.mbind, nr.move_pages),  # CONFIG_NUMA
    "aio": _calls(nr.io_setup, nr.io_submit, nr.io_getevents, nr.io_destroy),  # CONFIG_AIO
    "mqueue": _calls(nr.mq_open, nr.mq_unlink, nr.mq_notify, nr.mq_getsetattr),  # CONFIG_POSIX_MQUEUE
    "fanotify": _calls(nr.fanotify_init, nr.fanotify_mark),  # CONFIG_FANOTIFY
    "renameat2": _calls(nr.renameat2),
    "copy_file_range": _calls(nr.copy_file_range),
    "name_to_handle_at": _calls(nr.name_to_handle_at, nr.open_by_handle_at),  # CONFIG_FHANDLE
    "membarrier": _calls(nr.membarrier),  # CONFIG_MEMBARRIER
    "bpf": _calls(nr.bpf),  # CONFIG_BPF_SYSCALL
}

#: What torpor does without, and what it asks for by name.
AFTER_5_10 = tuple(TAKEN)[: tuple(TAKEN).index("pidfd_getfd")]
NEEDED = ("pidfd_getfd", "kcmp", "close_range", "openat2")
TAKEN["linux-5.10"] = tuple(rule for name in AFTER_5_10 for rule in TAKEN[name])


def program(rules: Sequence[Rule]) -> bytes:
    """The filter, as `sock_filter` records."""
    lines: list[tuple[int, int, int, int]] = []
    for rule in rules:
        tests = 1 if rule.arg is None else 3
        lines.append((_LOAD, 0, 0, 0))
        lines.append((_IF_EQUAL, 0, tests, rule.call))
        if rule.arg is not None:
            lines.append((_LOAD, 0, 0, _FIRST_ARG + 8 * rule.arg))
            lines.append((_IF_EQUAL, 0, 1, rule.value))
        lines.append((_RETURN, 0, 0, _ERRNO | rule.answer))
    lines.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *line) for line in lines)


def install(rules: Sequence[Rule]) -> None:
    """Have this process, and what it executes, do without.  Needs CAP_SYS_ADMIN."""
    code = program(rules)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, _MODE_FILTER, header, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")


def engine(name: str) -> list[str]:
    """The `criu` command without what `name` says."""
    return [sys.executable, str(Path(__file__)), name, sys.executable, "-m", "torpor.cli.criu.main"]


if __name__ == "__main__":
    install(TAKEN[sys.argv[1]])
    os.execv(sys.argv[2], sys.argv[2:])
