"""Pid 1 of a test machine (`harness.machine`): ``python -m harness.machine_init SPECIFICATION``.

Mounts what makes it a machine of its own, says ``ready``, then reaps orphans until it is killed or its standard input
ends, and with it everything in its pid namespace.  No part of this needs more than the standard library.
"""

import ctypes
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

MS_BIND = 0x1000  # linux/mount.h
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SHARED = 0x100000
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path | str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    raw = [os.fsencode(word) for word in (source, target, kind, data)]
    if _libc.mount(raw[0], raw[1], raw[2], ctypes.c_ulong(flags), raw[3]) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount {source} on {target}: {os.strerror(number)}")


def _keep(paths: list[str], below: str) -> dict[str, int]:
    """Descriptors of those *paths* that a mount on *below* is going to hide."""
    return {path: os.open(path, os.O_PATH) for path in paths if path.startswith(below + "/") and os.path.exists(path)}


def _bind_again(kept: dict[str, int]) -> None:
    for path, descriptor in kept.items():
        Path(path).mkdir(parents=True, exist_ok=True)
        mount(f"/proc/self/fd/{descriptor}", path, "none", MS_BIND | MS_REC)
        os.close(descriptor)


def _detach_hidden(hidden: tuple[str, ...], visible: list[str]) -> None:
    """Take away the mounts that are about to be hidden: what walks mountinfo, such as runc, would stumble over them."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()]
    for point in reversed(points):
        needed = any(path == point or path.startswith(point + "/") for path in visible)
        if point.startswith(tuple(directory + "/" for directory in hidden)) and not needed:
            _libc.umount2(os.fsencode(point), MNT_DETACH)


def make_mounts(base: Path, visible: list[str]) -> None:
    """Directories of the machine's own over those that Podman, sshd and a user's commands write to.

    *visible* are paths that stay what they are, even where one of ours would hide them.
    """
    mount("none", "/", "none", MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for directory in ("/etc", "/usr/local/sbin"):
        upper, work = base / "upper" / directory[1:], base / "work" / directory[1:]
        upper.mkdir(parents=True, exist_ok=True)
        work.mkdir(parents=True, exist_ok=True)
        mount("overlay", directory, "overlay", 0, f"lowerdir={directory},upperdir={upper},workdir={work}")
    storage = Path("/var/lib/containers")
    storage.mkdir(parents=True, exist_ok=True)
    own_storage = base / "containers"
    own_storage.mkdir(exist_ok=True)
    mount(str(own_storage), storage, "none", MS_BIND)
    own_tmp = base / "tmp"
    own_tmp.mkdir(exist_ok=True)
    own_tmp.chmod(0o1777)
    own_tmp_fd = os.open(own_tmp, os.O_PATH)
    hidden = ("/run", "/dev/shm", "/tmp", "/var/tmp")
    _detach_hidden(hidden, visible)
    for directory in hidden:
        kept = _keep(visible, directory)
        if directory in ("/run", "/dev/shm"):
            mount("tmpfs", directory, "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777" if directory != "/run" else "mode=755")
        else:
            mount(f"/proc/self/fd/{own_tmp_fd}", directory, "none", MS_BIND)
        _bind_again(kept)
    os.close(own_tmp_fd)
    # systemd shares all mounts, so container engines are used to that. Only now, or binds were each other's peers.
    mount("none", "/", "none", MS_REC | MS_SHARED)
    Path("/run/sshd").mkdir(mode=0o755)
    Path("/run/lock").mkdir(mode=0o1777)


def set_loopback_up() -> None:
    """`ip link set lo up`."""
    import fcntl
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS, IFF_UP | IFF_RUNNING


def main() -> None:
    """Set up, report on standard output, reap."""
    specification = json.loads(sys.argv[1])
    socket.sethostname(specification["name"])
    make_mounts(Path(specification["base"]), specification["visible"])
    set_loopback_up()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    # Without a handler of its own pid 1 is not sent SIGCHLD.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        ready, _, _ = select.select([reader, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        os.read(reader, 4096)


if __name__ == "__main__":
    main()
