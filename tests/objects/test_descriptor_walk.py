"""The differential table of descriptors: every F_GET of fcntl(2), flags and position, of every kind, before and after.

``pytest -s`` prints it.
"""

import ctypes
import errno
import fcntl
import os
import sys
from collections.abc import Callable, Mapping

import pytest

from harness.program import Program
from harness.terminals import others_get_lower

#: Number, and the bytes of what it points at (0: it returns its answer).
QUESTIONS: Mapping[str, tuple[int, int]] = {
    "F_GETFL": (3, 0),
    "F_GETOWN": (9, 0),
    "F_GETSIG": (11, 0),
    "F_GETOWN_EX": (16, 8),
    "F_GETOWNER_UIDS": (17, 8),
    "F_CREATED_QUERY": (1028, 0),
    "F_GETLEASE": (1025, 0),
    "F_GETPIPE_SZ": (1032, 0),
    "F_GET_SEALS": (1034, 0),
    "F_GET_RW_HINT": (1035, 8),
    "F_GET_FILE_RW_HINT": (1037, 8),
    "F_GETDELEG": (1039, 8),
}
#: The same of ioctl(2): what has been set, and tells of it.
IOCTLS: Mapping[str, tuple[int, int]] = {
    "TCGETS2": (0x802C542A, 44),
    "TIOCGWINSZ": (0x5413, 8),
    "TIOCGETD": (0x5424, 4),
    "TIOCGSOFTCAR": (0x5419, 4),
    "TIOCGPGRP": (0x540F, 4),
    "TIOCGSID": (0x5429, 4),
    "TIOCGEXCL": (0x80045440, 4),
    "TIOCGPKT": (0x80045438, 4),
    "TIOCGPTLCK": (0x80045439, 4),
    "TIOCGPTN": (0x80045430, 4),
    "TIOCGLCKTRMIOS": (0x5456, 36),
    "FS_IOC_GETFLAGS": (0x80086601, 8),
    "FS_IOC_GETVERSION": (0x80087601, 8),
    "FS_IOC_FSGETXATTR": (0x801C581F, 28),
    "EPIOCGPARAMS": (0x80088A02, 8),
    "FIONREAD": (0x541B, 4),
    "SIOCATMARK": (0x8905, 4),
    "SIOCGPGRP": (0x8904, 4),
}
NOT_THE_SAME: Mapping[str, str] = {
    "F_GET_RW_HINT": "of the inode: how long what is written to a disk will live; no disk is behind these",
    "F_GET_FILE_RW_HINT": "the same of the description, before 5.17",
    "F_CREATED_QUERY": "state of the moment: whether this very open(2) made the file",
    "FS_IOC_GETVERSION": "of the inode, which is a new one where a file was deleted",
}
_TMPFILE = "O_TMPFILE: it was opened so, and can be given a name all the same"
NOT_THE_SAME_OF_ONE: Mapping[tuple[str, str], str] = {("unnamed", "flags"): _TMPFILE, ("unnamed", "F_GETFL"): _TMPFILE}
#: Of the flags of an inode, those that chattr(1) sets; others are the file system's.
_FLAGS_SET = 0xF0
#: Where a hint for writing has a disk behind it.
ON_A_DISK = ("file", "appended", "written", "directory", "fifo")

_MAKER = """
import ctypes, fcntl, os, select, signal, socket, struct, sys, termios
libc = ctypes.CDLL(None)
signal.signal(34, signal.SIG_IGN)
held = {}
def open_file(name, flags):
    return os.open(os.path.join(os.environ["HOME"], name), flags | os.O_CREAT, 0o600)
held["file"] = open_file("file", os.O_RDWR)
os.write(held["file"], b"0123456789")
os.lseek(held["file"], 4, 0)
held["appended"] = open_file("appended", os.O_WRONLY | os.O_APPEND)
held["written"] = open_file("written", os.O_WRONLY | os.O_SYNC)
held["directory"] = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
held["path"] = os.open("/", os.O_PATH)
os.mkdir(os.path.join(os.environ["HOME"], "made"))
held["directory-made"] = os.open(os.path.join(os.environ["HOME"], "made"), os.O_RDONLY | os.O_DIRECTORY)
held["device"] = os.open("/dev/null", os.O_RDWR)
os.mkfifo(os.path.join(os.environ["HOME"], "fifo"))
held["fifo"] = os.open(os.path.join(os.environ["HOME"], "fifo"), os.O_RDWR)
held["pipe-out"], held["pipe-in"] = os.pipe()
fcntl.fcntl(held["pipe-in"], 1031, 1 << 17)
held["packets-out"], held["packets-in"] = os.pipe2(os.O_DIRECT)
held["eventfd"] = os.eventfd(3)
held["memfd"] = os.memfd_create("walk", os.MFD_ALLOW_SEALING)
fcntl.fcntl(held["memfd"], 1033, 2)
held["epoll"] = select.epoll().detach() if hasattr(select.epoll, "detach") else libc.epoll_create1(0)
held["inotify"] = libc.inotify_init1(0)
held["timerfd"] = libc.timerfd_create(1, 0)
held["signalfd"] = libc.signalfd(-1, struct.pack("Q", 1 << 40), 0)
held["pidfd"] = os.pidfd_open(os.getpid())
held["pty"], held["terminal"] = os.openpty()
held["memfd-fixed"] = os.memfd_create("fixed")
for name in ("ghost", "ghost-fixed", "ghost-shared"):
    path = os.path.join("/dev/shm" if name == "ghost-shared" else os.environ["HOME"], f"walk-{os.getpid()}")
    held[name] = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.unlink(path)
held["unnamed"] = os.open(os.environ["HOME"], os.O_RDWR | os.O_TMPFILE, 0o600)
for name, kind in (("stream", 1), ("dgram", 2), ("seqpacket", 5)):
    for end, made in zip(("near", "far"), socket.socketpair(socket.AF_UNIX, kind)):
        held[f"unix-{name}-{end}"] = made.detach()
for name, words in {
    "tcp": (2, 1), "tcp6": (10, 1), "udp": (2, 2), "udp6": (10, 2), "raw": (2, 3, 253), "packet": (17, 3),
    "netlink": (16, 3),
}.items():
    held[name] = socket.socket(*words).detach()
def control(fd, number, content):
    try:
        fcntl.ioctl(fd, number, content)
    except OSError as error:
        print("#", fd, hex(number), error)
control(held["pty"], 0x5414, struct.pack("4H", 33, 77, 5, 6))
control(held["pty"], 0x5420, struct.pack("i", 1))
attributes = termios.tcgetattr(held["terminal"])
attributes[3] &= ~termios.ECHO
attributes[6][termios.VINTR] = b"\x11"
termios.tcsetattr(held["terminal"], termios.TCSANOW, attributes)
control(held["terminal"], 0x5457, bytes(12) + struct.pack("I", termios.ECHO) + bytes(20))
control(held["terminal"], 0x540C, b"")
control(held["epoll"], 0x40088A01, struct.pack("IHBB", 20, 8, 0, 0))
for name in ("file", "ghost", "unnamed", "memfd", "directory-made"):
    control(held[name], 0x40086602, struct.pack("Q", 0x40 | 0x80))
for name, flag in (("ghost-shared", 0x20), ("ghost-fixed", 0x10), ("memfd-fixed", 0x10)):
    control(held[name], 0x40086602, struct.pack("Q", flag))
for at, (name, fd) in enumerate(held.items()):
    os.set_inheritable(fd, at % 2 == 0)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)
        fcntl.fcntl(fd, 10, 34)
        fcntl.fcntl(fd, 15, struct.pack("ii", at % 3, os.getpid() if at % 3 < 2 else os.getpgrp()))
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    except OSError:
        pass
    for hint in (1036, 1038):
        try:
            fcntl.fcntl(fd, hint, struct.pack("Q", 3))
        except OSError:
            pass
    print(name, fd, flush=True)
print("ready", flush=True)
while True:
    signal.pause()
"""

_libc = ctypes.CDLL(None, use_errno=True)
Table = dict[tuple[str, str], str]


class Descriptors(Program):
    """The program, which has one of every kind."""

    def begin(self) -> None:
        """Start it, and read which number is what."""
        with others_get_lower():
            self.start([sys.executable, "-c", _MAKER], env={"PYTHONDONTWRITEBYTECODE": "1"})
            self.wait_log("(?m)^ready$")
        lines = [line.split() for line in self.log().splitlines()]
        self.numbers = {line[0]: int(line[1]) for line in lines if len(line) == 2}

    def ask(self) -> Table:
        """Everything of all of them."""
        found: Table = {}
        pidfd = os.pidfd_open(self.pid)
        for name, number in self.numbers.items():
            with open(f"/proc/{self.pid}/fdinfo/{number}") as stream:
                lines = dict(line.split(":", 1) for line in stream if line.startswith(("pos:", "flags:")))
            found.update({(name, key): value.strip() for key, value in lines.items()})
            fd = _libc.syscall(438, pidfd, number, 0)
            assert fd >= 0
            for question, (code, size) in QUESTIONS.items():
                found[name, question] = _answer(fd, code, size)
            for question, (code, size) in IOCTLS.items():
                answer = _answer(fd, code, size, fcntl.ioctl)
                if question == "FS_IOC_GETFLAGS" and len(answer) == 2 * size:
                    answer = hex(int.from_bytes(bytes.fromhex(answer), "little") & _FLAGS_SET)
                found[name, question] = answer
            os.close(fd)
        os.close(pidfd)
        return found


def _answer(fd: int, code: int, size: int, ask: Callable[..., int | bytes] = fcntl.fcntl) -> str:
    try:
        answer = ask(fd, code, bytes(size)) if size else ask(fd, code)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return answer.hex() if isinstance(answer, bytes) else hex(answer)


@pytest.mark.root
def test_every_attribute_comes_back() -> None:
    with Descriptors() as program:
        program.begin()
        before = program.ask()
        program.sleep_and_wake()
        after = program.ask()
    lost = []
    for key, was in before.items():
        if was != after[key]:
            reason = NOT_THE_SAME_OF_ONE.get(key, NOT_THE_SAME.get(key[1]))
            reason = None if key[1].endswith("_RW_HINT") and key[0] in ON_A_DISK else reason
            print(f"{key[0]:20} {key[1]:20} {reason or 'LOST'}")
            if reason is None:
                lost.append(f"{key[0]}: {key[1]} was {was}, is {after[key]}")
    print(f"{len(program.numbers)} descriptors, {len(before)} answers")
    assert not lost, "\n".join(lost)
