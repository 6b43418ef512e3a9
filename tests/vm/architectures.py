"""The sorts of machines that qemu is: what differs between them, from packages to the name of the console."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Architecture:
    """One of them, by Debian's name."""

    name: str
    #: As uname(2) says it, and Python packages and tools for it are called.
    machine: str
    #: qemu's command, the package that has it, and what it is told.
    qemu: str
    qemu_package: str
    qemu_words: tuple[str, ...]
    console: str
    kernel_words: str
    #: Of its C library: the directory, and the loader in it.
    libraries: str
    loader: str

    @property
    def is_foreign(self) -> bool:
        """Whether this machine does not run its programs."""
        return self.machine != os.uname().machine


AMD64 = Architecture(
    "amd64",
    "x86_64",
    qemu="qemu-system-x86_64",
    qemu_package="qemu-system-x86",
    qemu_words=("-cpu", "max"),
    console="ttyS0",
    # On a busy host the emulated timer is late, and a kernel that checks it against the clock gives up.
    kernel_words="no_timer_check random.trust_cpu=on",
    libraries="usr/lib/x86_64-linux-gnu",
    loader="ld-linux-x86-64.so.2",
)
ARM64 = Architecture(
    "arm64",
    "aarch64",
    qemu="qemu-system-aarch64",
    qemu_package="qemu-system-arm",
    # With SVE and SME, pointer authentication by a cheaper algorithm than Arm's, and memory tags, which the board has.
    qemu_words=("-M", "virt,mte=on", "-cpu", "max,pauth-impdef=on"),
    console="ttyAMA0",
    kernel_words="random.trust_cpu=on nowatchdog",
    libraries="usr/lib/aarch64-linux-gnu",
    loader="ld-linux-aarch64.so.1",
)
