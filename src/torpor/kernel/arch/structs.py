"""This machine's ``structs``."""

from torpor.base.typed import TYPE_CHECKING
from torpor.kernel.arch import IS_AARCH64

if TYPE_CHECKING or not IS_AARCH64:
    from torpor.kernel.arch.x86_64.structs import *  # noqa: F403
else:
    from torpor.kernel.arch.aarch64.structs import *  # noqa: F403
