"""``/proc/PID/status``: see proc_pid_status(5)."""

from __future__ import annotations

from torpor.base.ids import Pid
from torpor.kernel.procfs.small import read_small


class Status:
    """What a checkpoint needs.  Pids are ours, ``ns_*`` lists run from our namespace to the innermost one.

    The text has sixty lines, and of most threads we ask for a few: each is looked up when it is asked for.
    KeyError for one that this kernel does not write and that has no default.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = "\n" + text

    def _get(self, key: str, default: str | None = None) -> str:
        start = self._text.find(f"\n{key}:\t")
        if start < 0:
            if default is None:
                raise KeyError(key)
            return default
        start += len(key) + 3
        return self._text[start : self._text.index("\n", start)]

    def _numbers(self, key: str) -> tuple[int, ...]:
        return tuple(map(int, self._get(key, "").split()))

    def _four(self, key: str) -> tuple[int, int, int, int]:
        real, effective, saved, fs = self._numbers(key)
        return real, effective, saved, fs

    def bits(self, key: str) -> int:
        """A mask; 0 where the kernel says nothing of it."""
        return int(self._get(key, "0"), 16)

    @property
    def locked_kib(self) -> int:
        """Memory that mlock(2) keeps."""
        return int(self._get("VmLck", "0 kB").split()[0])

    @property
    def name(self) -> str:
        """What the kernel calls the thread (its comm), without the escapes that this file has."""
        return _unescape(self._get("Name"))

    @property
    def state(self) -> str:
        """Its state as one letter, such as R, S or Z: see proc_pid_status(5)."""
        return self._get("State")[:1]

    @property
    def tgid(self) -> Pid:
        return Pid(int(self._get("Tgid")))

    @property
    def ppid(self) -> Pid:
        return Pid(int(self._get("PPid")))

    @property
    def n_threads(self) -> int:
        return int(self._get("Threads", "1"))

    @property
    def tracer(self) -> Pid:
        """Who traces it, or 0."""
        return Pid(int(self._get("TracerPid")))

    @property
    def uids(self) -> tuple[int, int, int, int]:
        """Real, effective, saved, file system."""
        return self._four("Uid")

    @property
    def gids(self) -> tuple[int, int, int, int]:
        """Real, effective, saved, file system."""
        return self._four("Gid")

    @property
    def identity(self) -> str:
        """The lines that say who it is, and what it may do: the same for threads that do not differ in that."""
        text = self._text
        start, caps = text.find("\nUid:"), text.find("\nCapInh:")
        return text[start : text.find("\nNStgid:", start)] + text[caps : text.find("\nSeccomp:", caps)] + "\n"

    @property
    def groups(self) -> tuple[int, ...]:
        return self._numbers("Groups")

    @property
    def ns_pids(self) -> tuple[int, ...]:
        return self._numbers("NSpid")

    @property
    def ns_tgids(self) -> tuple[int, ...]:
        return self._numbers("NStgid")

    @property
    def ns_pgids(self) -> tuple[int, ...]:
        return self._numbers("NSpgid")

    @property
    def ns_sids(self) -> tuple[int, ...]:
        return self._numbers("NSsid")

    @property
    def umask(self) -> int:
        return int(self._get("Umask", "0"), 8)

    @property
    def cap_inheritable(self) -> int:
        return self.bits("CapInh")

    @property
    def cap_permitted(self) -> int:
        return self.bits("CapPrm")

    @property
    def cap_effective(self) -> int:
        return self.bits("CapEff")

    @property
    def cap_bounding(self) -> int:
        return self.bits("CapBnd")

    @property
    def cap_ambient(self) -> int:
        return self.bits("CapAmb")

    @property
    def no_new_privs(self) -> bool:
        return self._get("NoNewPrivs", "0") == "1"

    @property
    def seccomp_mode(self) -> int:
        return int(self._get("Seccomp", "0"))

    @property
    def thp_enabled(self) -> bool:
        return self._get("THP_enabled", "1") == "1"

    @property
    def locked(self) -> int:
        """Memory that is locked, in kB."""
        return int(self._get("VmLck", "0").split()[0])

    @property
    def pending(self) -> int:
        """The thread's own pending signals, bit n-1 for signal n."""
        return self.bits("SigPnd")

    @property
    def shared_pending(self) -> int:
        """The pending signals of the process as a whole, bit n-1 for signal n."""
        return self.bits("ShdPnd")

    @property
    def blocked(self) -> int:
        return self.bits("SigBlk")

    @property
    def ignored(self) -> int:
        return self.bits("SigIgn")

    @property
    def caught(self) -> int:
        return self.bits("SigCgt")

    def word(self, key: str) -> str:
        """A line's text; empty where the kernel has no such line."""
        return self._get(key, "")


def parse_status(text: str) -> Status:
    """All of the file."""
    return Status(text)


def _unescape(name: str) -> str:
    """The kernel escapes two characters here, and none in ``stat``."""
    if "\\" not in name:
        return name
    return name.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\")


def read_status(pid: Pid, tid: Pid | None = None) -> Status:
    """Of a process, or of its thread *tid*.  FileNotFoundError or ProcessLookupError when it is gone."""
    path = f"/proc/{pid}/status" if tid is None else f"/proc/{pid}/task/{tid}/status"
    return parse_status(read_small(path))
