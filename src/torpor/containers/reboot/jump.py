"""The reboot itself: by systemd, or by kexec right into another kernel, without firmware and boot loader.

All that can be known to stand in the way is found before anything is stopped; a kernel that has been loaded and is not
going to be started is unloaded again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torpor.base.errors import EngineError, NotPermittedError, RefusedError, TorporError
from torpor.containers.commands import command_of, run
from torpor.containers.reboot import units
from torpor.containers.systemd import is_here

_BOOT_LOADER = "make it the boot loader's next one, and `torpor reboot` without --kernel"
#: Where distributions keep kernels and the initial file systems of them, by the version.
_KERNELS = ("boot/vmlinuz-{}", "usr/lib/modules/{}/vmlinuz", "lib/modules/{}/vmlinuz", "boot/vmlinux-{}")
_INITRDS = ("boot/initrd.img-{}", "boot/initramfs-{}.img", "boot/initrd-{}")
_PREFIXES = ("vmlinuz-", "vmlinux-")


@dataclass(frozen=True, slots=True)
class Kernel:
    """What kexec is going to load: the image, the initial file system (None without one), the command line."""

    image: Path
    initrd: Path | None
    words: str


def insist_it_comes_back() -> None:
    """TorporError unless units of ours will save and restore."""
    if os.geteuid() != 0:
        raise NotPermittedError("only root may reboot the machine", hint="run as root")
    if not is_here():
        raise TorporError(
            "systemd is not init here: nothing would be restored", hint="torpor survive --save, --restore"
        )
    if not units.are_there():
        raise RefusedError("nothing would be restored at boot", hint="torpor setup --survive-reboot")


def kernel_called(word: str, initrd: Path | None, words: str | None, root: Path = Path("/")) -> Kernel:
    """The kernel of that version, or in that file; TorporError if there is none.

    *words*: its command line, this kernel's by default.
    """
    image, version = _image(word, root)
    if initrd is None:
        places = [root / place.format(version) for place in _INITRDS if version]
        places += [image.with_name(Path(place).name.format(version)) for place in _INITRDS if version]
        initrd = next((place for place in places if place.is_file()), None)
    elif not initrd.is_file():
        raise TorporError(f"there is no {initrd}")
    return Kernel(image, initrd, words if words is not None else _words_of_this(root))


def _image(word: str, root: Path) -> tuple[Path, str]:
    if "/" in word:
        image = Path(word)
        if not image.is_file():
            raise TorporError(f"there is no kernel {image}")
        prefix = next((prefix for prefix in _PREFIXES if image.name.startswith(prefix)), None)
        return image, image.name.removeprefix(prefix) if prefix else ""
    places = [root / place.format(word) for place in _KERNELS]
    image = next((place for place in places if place.is_file()), places[0])
    if not image.is_file():
        known = sorted(path.name for path in (root / "lib/modules").glob("*"))
        hint = f"there are {', '.join(known)}" if known else "name its file: --kernel PATH"
        raise TorporError(f"there is no kernel {word} ({', '.join(map(str, places[:2]))})", hint=hint)
    return image, word


def _words_of_this(root: Path) -> str:
    """What the boot loader has told this kernel, without what it says of itself."""
    words = (root / "proc/cmdline").read_text(encoding="utf-8", errors="replace").split()
    return " ".join(word for word in words if not word.startswith(("BOOT_IMAGE=", "initrd=")))


def objection(root: Path = Path("/")) -> TorporError | None:
    """Why this machine cannot start another kernel by kexec; None if it can."""
    if not (root / "sys/kernel/kexec_loaded").exists():
        return RefusedError("this kernel has no kexec (CONFIG_KEXEC)", hint=_BOOT_LOADER)
    if _text(root / "proc/sys/kernel/kexec_load_disabled") not in ("", "0"):
        return RefusedError("kexec is switched off until the next boot (kernel.kexec_load_disabled)", hint=_BOOT_LOADER)
    if not command_of("kexec"):
        return RefusedError("there is no kexec on this machine", hint="Debian: apt-get install kexec-tools")
    return None


def _is_locked_down(root: Path = Path("/")) -> bool:
    """Whether only signed kernels may be loaded, by kexec_file_load (kernel_lockdown(7))."""
    told = _text(root / "sys/kernel/security/lockdown")
    return bool(told) and "[none]" not in told


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def load(kernel: Kernel) -> None:
    """Have *kernel* ready to be started; EngineError, with what kexec said.  Nothing is stopped by that."""
    line = ["--load", str(kernel.image), f"--command-line={kernel.words}"]
    line += [f"--initrd={kernel.initrd}"] if kernel.initrd else []
    line += ["--kexec-file-syscall"] if _is_locked_down() else []
    run("kexec", *line, timeout_s=120)


def go(kernel: Kernel | None) -> None:
    """Have systemd take the machine down, and start *kernel*, or what the boot loader chooses."""
    verb = "kexec" if kernel is not None else "reboot"
    try:
        run("systemctl", verb, "--no-block", timeout_s=60)
    except BaseException:
        if kernel is not None:
            unload()
        raise


def unload() -> None:
    """Forget a kernel that was loaded."""
    try:
        run("kexec", "--unload", timeout_s=60)
    except EngineError as error:
        error.add_note("a kernel may be loaded still: kexec --unload")
