"""This machine's ``core``."""

from torpor.base.typed import TYPE_CHECKING
from torpor.kernel.arch import IS_AARCH64

if TYPE_CHECKING or not IS_AARCH64:
    from torpor.objects.arch.x86_64.core import *  # noqa: F403
else:
    from torpor.objects.arch.aarch64.core import *  # noqa: F403
