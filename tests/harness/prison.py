"""A root directory with one program in it (tests/workloads/prisoner.c), in namespaces of its own: a container.

    python harness/prison.py ROOT [PROGRAM ARGUMENT...]

starts it, or another program in there, and writes its pid.  Nothing of the host is mounted in ROOT.
"""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.compiler import compiled
from torpor.kernel import mount as mounts
from torpor.kernel import namespaces as ns
from torpor.kernel.netdevice import loopback_up

FLAGS = ns.CLONE_NEWPID | ns.CLONE_NEWNS | ns.CLONE_NEWUTS | ns.CLONE_NEWIPC | ns.CLONE_NEWNET


def lay_out(root: Path) -> None:
    """The directories alone."""
    for name in ("proc", "tmp", "dev", "data"):
        (root / name).mkdir(parents=True)


def build(root: Path) -> None:
    """Lay it out."""
    lay_out(root)
    shutil.copy2(compiled("prisoner"), root / "prisoner")
    os.mkfifo(root / "bell")


def empty(root: Path) -> None:
    """As the program finds it when it is started, and as a restore needs it."""
    for path in (root / "data").iterdir():
        path.unlink()


def start(root: Path, command: Sequence[str] = ("/prisoner",)) -> int:
    """Start the program; its pid as we see it."""
    line = [sys.executable, __file__, str(root), *command]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True, env=environment, timeout=60)
    return int(done.stdout)


def _mount(fstype: str, point: str, options: "str | None" = None) -> None:
    mounts.mount(fstype, point, fstype, 0, options)


def _enter(root: str, command: list[str]) -> None:
    os.setsid()
    mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
    mounts.mount(root, root, None, mounts.MS_BIND)
    os.chdir(root)
    mounts.pivot_root(".", ".")
    mounts.unmount(".", mounts.MNT_DETACH)
    os.chdir("/")
    _mount("proc", "/proc")
    _mount("tmpfs", "/tmp", "size=4m")
    _mount("tmpfs", "/dev", "size=64k,mode=755")
    os.mkdir("/dev/pts")
    _mount("devpts", "/dev/pts", "newinstance,ptmxmode=0666")
    for name, minor in (("null", 3), ("zero", 5)):
        os.mknod(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(1, minor))
    loopback_up()
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.closerange(3, 256)
    kept = {name: os.environ[name] for name in ("GLIBC_TUNABLES",) if name in os.environ}
    os.execve(command[0], command, kept)


def main(flags: int = FLAGS) -> None:
    """As a program."""
    ns.unshare(flags)
    pid = os.fork()
    if pid == 0:
        try:
            _enter(sys.argv[1], sys.argv[2:])
        finally:
            os._exit(127)
    print(pid, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
