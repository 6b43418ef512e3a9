"""The profile of AppArmor's that Podman brings itself, and loads only when it starts a container.

After a reboot, or on a host that has not run a container yet, it is not there for one that is restored.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress

from torpor.base.errors import EngineError
from torpor.containers.commands import run
from torpor.kernel import lsm

_PODMAN = "podman"
#: And the version of Podman's library.
_PREFIX = "containers-default-"
_SBIN = "/usr/sbin:/sbin"


def load(wanted: str = _PREFIX) -> None:
    """Have Podman load its profile where it is not: that which a container has, *wanted*, or any, if that is not known.

    Nothing happens where it has none, and an error is not ours to tell: the restore will say what is missing.
    """
    if not wanted.startswith(_PREFIX) or lsm.active() != lsm.APPARMOR:
        return
    # Without the parser Podman gives its containers no profile (IsSupported() of its library).
    if not shutil.which("apparmor_parser", path=_SBIN):
        return
    with suppress(OSError, EngineError):
        if any(name.startswith(wanted) for name in lsm.profiles()):
            return
        # A container without an image, which is made ready and never runs.
        with tempfile.TemporaryDirectory() as root:
            ident = run(_PODMAN, "create", "--network=none", "--rootfs", root, "/").split()[-1]
            try:
                run(_PODMAN, "init", ident)
            finally:
                run(_PODMAN, "rm", "--force", "--time=0", ident)
