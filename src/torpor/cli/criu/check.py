"""``criu check``: whether the kernel has what checkpointing needs."""

from __future__ import annotations

import sys

from torpor.base import log
from torpor.cli.criu.options import Options
from torpor.kernel.features import FEATURES, probe

#: Without these nothing works.
REQUIRED = ("mnt_id", "clone3_set_tid", "pidfd_store", "seccomp_suspend")
#: Of these CRIU itself says that they are experimental.
EXPERIMENTAL = ("autofs", "compat_cr")
#: What depends on programs or modules, not on the kernel; asked for only by name.
BY_NAME = ("has_ipt_legacy", "apparmor_stacking")
#: What torpor does not do yet, whatever the kernel has: whoever asks wants to know what will work.
NOT_DONE = {
    "autofs": "mounts of automounters are not carried",
    "apparmor_stacking": "AppArmor's policies and their namespaces are not carried",
}


def main(options: Options) -> int:
    """Say what is there; 0 when all that was asked for is."""
    log.configure(fd=2, level=options.verbosity)
    if options.feature:
        return _one(options.feature)
    if lacking_required():
        return 1
    lacking: list[str] = []
    if options.extra or options.all:
        extra = [name for name in FEATURES if name not in (*REQUIRED, *EXPERIMENTAL, *BY_NAME)]
        lacking += [name for name in extra if not _works(name)]
    if options.experimental or options.all:
        lacking += [name for name in EXPERIMENTAL if not _works(name)]
    for name in lacking:
        log.warn(f"{name} is not supported")
    if lacking:
        sys.stdout.write(
            "Looks good but some kernel features are missing\n"
            "which, depending on your process tree, may cause\n"
            "dump or restore failure.\n"
        )
        return 1
    sys.stdout.write("Looks good.\n")
    return 0


def _works(name: str) -> bool:
    return name not in NOT_DONE and probe(name)


def lacking_required() -> list[str]:
    """What is required and is not there, which the log says too."""
    lacking = [name for name in REQUIRED if not probe(name)]
    for name in lacking:
        log.error(f"{name} is required and is not there")
    return lacking


def _one(name: str) -> int:
    if name not in FEATURES:
        log.error(f"Unknown feature {name}")
        return 1
    if not _works(name):
        log.warn(f"{name} is not supported" + (f": {NOT_DONE[name]}" if name in NOT_DONE else ""))
        return 1
    sys.stdout.write(f"{name} is supported\n")
    return 0
