"""Kernels of Debian's suites: the image, its modules, and a small initial file system that finds the root disk."""

import gzip
import lzma
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness.cache import made
from harness.machine import need_commands
from harness.skips import missing
from vm.architectures import AMD64, ARM64, Architecture

HOST_COMMANDS = {"mmdebstrap": "mmdebstrap", "depmod": "kmod", "cpio": "cpio"}


@dataclass(frozen=True, slots=True)
class Kernel:
    """One of the lab's kernels: what users call it, and the suite of Debian's that has it."""

    name: str
    suite: str
    architecture: Architecture = AMD64

    @property
    def packages(self) -> tuple[str, ...]:
        """Debian's: the kernel, and the shell of the initial file system."""
        return f"linux-image-cloud-{self.architecture.name}", "busybox-static"


KERNELS = (
    Kernel("5.10", "bullseye"),
    Kernel("6.1", "bookworm"),
    Kernel("6.12", "trixie"),
    Kernel("7.x", "sid"),
    Kernel("arm64", "bookworm", ARM64),
)

#: What only old suites have, and only unfinished ones: security archives that have moved, release files of last week.
SUITE_OPTIONS = {
    "bullseye": ["--setup-hook=sed -i /security/d $1/etc/apt/sources.list"],
    "sid": ['--aptopt=Acquire::Check-Valid-Until "false"'],
}
#: What the root disk needs; a kernel that has one of them built in has no module of that name.
_NEEDED = ("virtio_pci", "virtio_blk", "ext4")
_INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module; done
/bin/busybox mount -t ext4 -o rw /dev/vda /root || exec /bin/busybox poweroff -f
/bin/busybox mount --move /dev /root/dev
init=/sbin/init
/bin/busybox mount -t proc proc /proc
for word in $(/bin/busybox cat /proc/cmdline); do case $word in init=*) init=${word#init=} ;; esac; done
/bin/busybox umount /proc
exec /bin/busybox switch_root /root $init
"""


def by_name(name: str) -> Kernel:
    """The kernel of this name.  Raises KeyError, which names those that there are."""
    found = {kernel.name: kernel for kernel in KERNELS}
    if name not in found:
        raise KeyError(f"no kernel {name} in the lab; there are {', '.join(found)}")
    return found[name]


def kernel_files(kernel: Kernel) -> Path:
    """A directory with `vmlinuz`, `initrd`, and the modules below `modules/VERSION`."""
    need_commands(HOST_COMMANDS)
    recipe = f"{kernel.suite} {kernel.packages} {SUITE_OPTIONS.get(kernel.suite)} {_NEEDED} {_INIT}"
    return made(f"vm-kernel-{kernel.name}", recipe.encode(), lambda work: _make(kernel, work))


def version(kernel: Kernel) -> str:
    """Its release, as uname(1) says it: 6.1.0-42-cloud-amd64."""
    return _only(kernel_files(kernel) / "modules").name


def _only(directory: Path) -> Path:
    (path,) = directory.iterdir()
    return path


def _make(kernel: Kernel, work: Path) -> Path:
    tree = work / "tree"
    line = ["mmdebstrap", "--quiet", "--variant=extract", f"--include={','.join(kernel.packages)}"]
    line += [f"--architectures={kernel.architecture.name}", *SUITE_OPTIONS.get(kernel.suite, [])]
    line += ['--aptopt=Acquire::Languages "none"', kernel.suite, str(tree)]
    unpacked = subprocess.run(line, capture_output=True, text=True, timeout=1200, check=False)
    if unpacked.returncode != 0:
        missing(f"Debian's kernel of {kernel.suite} ({unpacked.stderr.strip()[-500:]})")
    files = work / "files"
    files.mkdir()
    # Suites before the merge of / and /usr have /lib/modules, and the newest keep the kernel beside its modules.
    modules = next(path for path in (tree / "usr/lib/modules", tree / "lib/modules") if path.is_dir())
    images = [*tree.glob("boot/vmlinuz-*"), *modules.glob("*/vmlinuz")]
    shutil.copy(images[0], files / "vmlinuz")
    release = _only(modules).name
    base = files / "lib"
    base.mkdir()
    shutil.move(modules, base / "modules")
    subprocess.run(["depmod", "--basedir", str(files), release], check=True, capture_output=True)
    (base / "modules").rename(files / "modules")
    base.rmdir()
    busybox = next(path for path in (tree / "usr/bin/busybox", tree / "bin/busybox") if path.exists())
    _make_initrd(files / "modules" / release, busybox, work / "initrd", files / "initrd")
    return files


def _make_initrd(modules: Path, busybox: Path, scratch: Path, target: Path) -> None:
    for name in ("bin", "dev", "proc", "root", "modules"):
        (scratch / name).mkdir(parents=True)
    shutil.copy(busybox, scratch / "bin/busybox")
    (scratch / "init").write_text(_INIT)
    (scratch / "init").chmod(0o755)
    order = []
    for path in _load_order(modules):
        name = path.name.removesuffix(".xz")
        data = path.read_bytes()
        (scratch / "modules" / name).write_bytes(lzma.decompress(data) if path.suffix == ".xz" else data)
        order.append(name)
    (scratch / "modules/order").write_text("\n".join(order))
    names = "\n".join(str(path.relative_to(scratch)) for path in sorted(scratch.rglob("*")))
    line = ["cpio", "--quiet", "--create", "--format=newc", "--owner=0:0"]
    archive = subprocess.run(line, input=names.encode(), cwd=scratch, stdout=subprocess.PIPE, check=True).stdout
    target.write_bytes(gzip.compress(archive, 1))


def _load_order(modules: Path) -> list[Path]:
    """The files of what is needed, each after those that it depends on (modules.dep(5) lists the nearest first)."""
    depends = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        file, _, others = line.partition(":")
        depends[Path(file).name.split(".ko")[0]] = [file, *others.split()]
    order: list[Path] = []
    for name in _NEEDED:
        for file in reversed(depends.get(name, [])):
            if modules / file not in order:
                order.append(modules / file)
    return order
