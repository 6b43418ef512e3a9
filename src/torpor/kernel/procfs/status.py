"""``/proc/PID/status``: see proc_pid_status(5)."""

from __future__ import annotations

from torpor.base.records import dataclass
from torpor.kernel.procfs.small import read_small


@dataclass(frozen=True, slots=True)
class Status:
    """What a checkpoint needs.  Pids are ours, ``ns_*`` lists run from our namespace to the innermost one."""

    name: str
    state: str
    tgid: int
    ppid: int
    tracer: int
    uids: tuple[int, int, int, int]
    gids: tuple[int, int, int, int]
    groups: tuple[int, ...]
    ns_pids: tuple[int, ...]
    ns_tgids: tuple[int, ...]
    ns_pgids: tuple[int, ...]
    ns_sids: tuple[int, ...]
    umask: int
    cap_inheritable: int
    cap_permitted: int
    cap_effective: int
    cap_bounding: int
    cap_ambient: int
    no_new_privs: bool
    seccomp_mode: int
    n_threads: int
    thp_enabled: bool
    pending: int
    shared_pending: int
    blocked: int
    ignored: int
    caught: int
    shadow_stack: bool


def parse_status(text: str) -> Status:
    """All of the file."""
    f = dict(line.split(":\t", 1) for line in text.split("\n") if ":\t" in line)

    def numbers(key: str) -> tuple[int, ...]:
        return tuple(map(int, f.get(key, "").split()))

    def four(key: str) -> tuple[int, int, int, int]:
        real, effective, saved, fs = numbers(key)
        return real, effective, saved, fs

    def bits(key: str) -> int:
        return int(f.get(key, "0"), 16)

    return Status(
        name=_unescape(f["Name"]), state=f["State"][:1],
        tgid=int(f["Tgid"]), ppid=int(f["PPid"]), tracer=int(f["TracerPid"]),
        uids=four("Uid"), gids=four("Gid"), groups=numbers("Groups"),
        ns_pids=numbers("NSpid"), ns_tgids=numbers("NStgid"), ns_pgids=numbers("NSpgid"), ns_sids=numbers("NSsid"),
        umask=int(f.get("Umask", "0"), 8),
        cap_inheritable=bits("CapInh"), cap_permitted=bits("CapPrm"), cap_effective=bits("CapEff"),
        cap_bounding=bits("CapBnd"), cap_ambient=bits("CapAmb"),
        no_new_privs=f.get("NoNewPrivs") == "1", seccomp_mode=int(f.get("Seccomp", "0")),
        n_threads=int(f.get("Threads", "1")), thp_enabled=f.get("THP_enabled", "1") == "1",
        pending=bits("SigPnd"), shared_pending=bits("ShdPnd"), blocked=bits("SigBlk"), ignored=bits("SigIgn"),
        caught=bits("SigCgt"), shadow_stack="shstk" in f.get("x86_Thread_features", ""),
    )  # fmt: skip


def _unescape(name: str) -> str:
    """The kernel escapes two characters here, and none in ``stat``."""
    if "\\" not in name:
        return name
    return name.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\")


def read_status(pid: int, tid: int | None = None) -> Status:
    """Of a process, or of its thread *tid*.  FileNotFoundError or ProcessLookupError when it is gone."""
    path = f"/proc/{pid}/status" if tid is None else f"/proc/{pid}/task/{tid}/status"
    return parse_status(read_small(path))
