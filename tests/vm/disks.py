"""Root disks: a Debian user space from packages, with the modules of all the lab's kernels, as an ext4 file."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from inspect import getsource
from pathlib import Path

import torpor
from harness.cache import made
from harness.machine import need_commands
from harness.skips import missing
from vm.architectures import AMD64, Architecture
from vm.kernels import KERNELS, SUITE_OPTIONS, Kernel, by_name, kernel_files

HOST_COMMANDS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"}
GUEST = Path(__file__).parent / "guest"
#: Of policy: what torpor brings, and domains of the tests.
MODULES = (
    Path(torpor.__file__).parent / "policy/torpor.cil",
    *sorted((Path(__file__).parent / "confined").glob("*.cil")),
)

_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*", "/usr/share/info/*")
#: What our tests in there want, whatever they are about.
_FOR_TESTS = (
    "python3", "gcc", "libc6-dev", "procps", "iproute2", "util-linux", "mount", "nftables", "kmod", "busybox-static",
)  # fmt: skip
#: What is there anyway where packages are installed, and not only unpacked.
_ESSENTIAL = (
    "base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "diffutils", "findutils", "grep", "gzip",
    "hostname", "libc-bin", "login", "mawk", "ncurses-base", "ncurses-bin", "sed", "tar",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Image:
    """A root disk's recipe.  `name` is its place in the cache, so each recipe has its own."""

    name: str
    packages: tuple[str, ...] = ()
    n_megabytes: int = 1500
    #: What is done to the tree before it becomes a file system.  Its source is a part of the recipe.
    prepare: Callable[[Path], None] | None = None
    suite: str = "bookworm"
    kernels: tuple[Kernel, ...] = KERNELS
    #: Other files that it is made of.
    sources: tuple[Path, ...] = ()


def _runc(tree: Path) -> None:
    """Podman's containers are runc's: it takes crun where both are, which Debian has built without checkpoints."""
    (tree / "etc/containers/containers.conf").write_text('[engine]\nruntime = "runc"\n')


#: A script as init: a program's test begins five seconds after the start.
PLAIN = Image("plain", _FOR_TESTS, n_megabytes=1200)
#: The least in which torpor runs, for one kernel: made in a minute, where the others take several.
BARE = Image("bare", ("python3", "iproute2", "kmod", "mount"), n_megabytes=600, kernels=(by_name("6.1"),))
#: systemd, control groups version 2 and Podman, as a user of Debian has them.
SYSTEMD = Image(
    "systemd",
    (
        *_FOR_TESTS, "systemd", "systemd-sysv", "dbus", "udev", "podman", "runc", "crun", "conmon", "catatonit",
        "netavark", "aardvark-dns", "iptables", "curl",
    ),
    n_megabytes=2000,
    prepare=_runc,
)  # fmt: skip

#: systemd, and what starts another kernel without a reboot of the machine.
KEXEC = Image("kexec", (*_FOR_TESTS, "systemd", "systemd-sysv", "dbus", "udev", "kexec-tools"))


def _trixie(tree: Path) -> None:
    """What crun loads to checkpoint, which only sid packages, and a Docker that has checkpoints."""
    _runc(tree)
    with tempfile.TemporaryDirectory() as scratch:
        only = Path(scratch, "tree")
        _mmdebstrap("sid", ("libcriu2",), only, "--variant=extract", *SUITE_OPTIONS["sid"])
        for path in only.glob("usr/lib/*/libcriu.so.*"):
            shutil.copy(path, tree / path.relative_to(only), follow_symlinks=False)
    (tree / "etc/docker").mkdir(exist_ok=True)
    (tree / "etc/docker/daemon.json").write_text('{"experimental": true}\n')


#: The user space of the stable Debian, with the newer Podman, crun and Docker.
TRIXIE = Image(
    "trixie",
    (
        *SYSTEMD.packages, "docker.io", "docker-cli", "dbus-user-session", "uidmap", "passt", "slirp4netns",
        "libprotobuf-c1",
    ),
    n_megabytes=2600,
    prepare=_trixie,
    suite="trixie",
)  # fmt: skip


def _label(tree: Path) -> None:
    """Our modules of policy are loaded, which takes minutes in there; files get the labels that the policy says."""
    modules = sorted(MODULES, key=lambda path: path.name)
    for path in modules:
        shutil.copy(path, tree / "root")
    contexts = "/etc/selinux/default/contexts/files/file_contexts"
    inside = f"""
        set -e
        mount -t proc proc {tree}/proc
        chroot {tree} semodule -N {" ".join(f"-i /root/{path.name}" for path in modules)}
        chroot {tree} setfiles -F -e /proc {contexts} /
    """
    subprocess.run(["unshare", "--mount", "sh", "-c", inside], check=True, capture_output=True, timeout=600)


#: SELinux with Debian's policy, or AppArmor: the kernel's command line says which, `lab-init` loads it.
CONFINED = Image(
    "confined",
    (
        *_FOR_TESTS, "selinux-policy-default", "policycoreutils", "apparmor", "podman", "runc", "conmon", "netavark",
        "aardvark-dns", "iptables",
    ),
    n_megabytes=2000,
    prepare=_label,
    sources=MODULES,
)  # fmt: skip


def disk(image: Image, architecture: Architecture = AMD64) -> Path:
    """The file with the file system, to be read only: a machine writes into a copy.  Made now if it is not there."""
    need_commands(HOST_COMMANDS)
    if architecture.is_foreign and image is not PLAIN:
        missing(f"a host of {architecture.name}: packages with services are configured by their own programs")
    name = image.name if architecture is AMD64 else f"{image.name}-{architecture.name}"
    recipe = f"{image.suite} {image.packages} {_LEFT_OUT} {_ESSENTIAL if architecture.is_foreign else ''}".encode()
    tree = made(f"vm-tree-{name}", recipe, lambda work: _unpack(image, architecture, work))
    kernels = [kernel for kernel in image.kernels if kernel.architecture is architecture]
    modules = [kernel_files(kernel) / "modules" for kernel in kernels]
    parts = [str(path) for path in (tree, *modules)] + [str(image.n_megabytes), getsource(_finish)]
    parts += [getsource(_configure)] if architecture.is_foreign else []
    parts += [path.read_text() for path in sorted(GUEST.iterdir())]
    parts += [getsource(image.prepare)] if image.prepare else []
    parts += [path.read_text() for path in image.sources]
    recipe = "\0".join(parts).encode()
    return made(f"vm-disk-{name}", recipe, lambda work: _make(image, architecture, tree, modules, work)) / "disk.ext4"


def _unpack(image: Image, architecture: Architecture, work: Path) -> Path:
    tree, packages = work / "tree", image.packages
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
    if architecture.is_foreign:
        packages = (*_ESSENTIAL, *packages)
        options += [f"--architectures={architecture.name}", "--variant=extract"]
        options += ["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"]
    else:
        options += ["--variant=minbase"]
    _mmdebstrap(image.suite, packages, tree, *options)
    return tree


def _mmdebstrap(suite: str, packages: tuple[str, ...], tree: Path, *options: str) -> None:
    line = ["mmdebstrap", "--quiet", f"--include={','.join(packages)}", *options]
    line += ['--aptopt=Acquire::Languages "none"', suite, str(tree)]
    unpacked = subprocess.run(line, capture_output=True, text=True, timeout=1800, check=False)
    if unpacked.returncode != 0:
        missing(f"Debian packages for a machine's disk ({unpacked.stderr.strip()[-500:]})")


def _configure(tree: Path) -> None:
    """What scripts of packages would do, which cannot run here, as far as programs and our tests need it."""
    (tree / "usr/local/sbin").mkdir(parents=True)
    for name in ("passwd", "group"):
        shutil.copy(tree / f"usr/share/base-passwd/{name}.master", tree / f"etc/{name}")


def _make(image: Image, architecture: Architecture, packages: Path, modules: list[Path], work: Path) -> Path:
    tree = work / "tree"
    subprocess.run(["cp", "-a", str(packages), str(tree)], check=True)
    for kernel in modules:
        shutil.copytree(kernel, tree / "usr/lib/modules", dirs_exist_ok=True)
    if architecture.is_foreign:
        _configure(tree)
    _finish(tree)
    if image.prepare:
        image.prepare(tree)
    files = work / "files"
    files.mkdir()
    line = ["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(files / "disk.ext4"), f"{image.n_megabytes}M"]
    subprocess.run(line, check=True, capture_output=True, timeout=600)
    return files


def _finish(tree: Path) -> None:
    """Our two programs, and the unit that runs them where systemd is init."""
    place = tree / "usr/local/sbin"
    for name in ("lab-init", "lab-job"):
        shutil.copy(GUEST / name, place / name)
        (place / name).chmod(0o755)
    (place / "criu").symlink_to("/opt/torpor/bin/criu")
    (place / "torpor").symlink_to("/opt/torpor/bin/torpor")
    (tree / "etc/hostname").write_text("lab\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost lab\n")
    units = tree / "etc/systemd/system"
    wanted = units / "multi-user.target.wants"
    wanted.mkdir(parents=True, exist_ok=True)
    shutil.copy(GUEST / "lab-job.service", units)
    (wanted / "lab-job.service").symlink_to("../lab-job.service")
